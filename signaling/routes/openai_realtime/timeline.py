"""The items of one session, in OpenAI's words: what begins, commits and completes them. Sans-IO.

Items are begun by speech; where the client commits by hand, each begins where the one before it ended. They are
committed by a silence or by the client, and complete once all of their utterances have been decoded. A commit or a
clear takes effect once the audio before it has been judged, in the order in which the client asked.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mediaserver.audio.clock import FRAME_SAMPLES, SAMPLE_RATE
from mediaserver.events import Word
from signaling.routes.openai_errors import RefusalDetail
from signaling.routes.openai_realtime.errors import SERVER_ERROR, RealtimeError, told_detail
from signaling.routes.openai_realtime.items import Item, Piece
from signaling.routes.openai_realtime.server_events import (
    Cleared,
    Committed,
    DurationUsage,
    InputAudio,
    ItemTold,
    ServerEvent,
    SpeechStartedTold,
    SpeechStoppedTold,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionFailed,
    UserItem,
)

COMMIT_LEAST_S = 0.1
"""A commit of less audio is refused, as OpenAI does."""

ITEMS_KEPT = 500
"""Items that can be asked for again; the oldest is forgotten first. It is an hour of turns."""

FRAME_S = FRAME_SAMPLES / SAMPLE_RATE

FINAL_LOST = RefusalDetail(
    message="The connection was closed before the text was there.", type=SERVER_ERROR, param=None, code="final_lost"
)


@dataclass(frozen=True, slots=True)
class _Request:
    """A commit or a clear that waits until the audio before it has been judged."""

    at_s: float
    is_clear: bool


@dataclass(slots=True)
class Manner:
    """How items are told.

    Args:
        padding_s: audio that an item has from before speech was noticed.
        is_manual: only the client says where items end.
        is_legacy: an item is `created`, not `added` and `done`.
        transcribes: their text is told.
        with_logprobs: with its words' log-probabilities.
    """

    padding_s: float = 0.0
    is_manual: bool = False
    is_legacy: bool = False
    transcribes: bool = True
    with_logprobs: bool = False


class Timeline:
    """The items of one session.

    Args:
        name: what their ids are made of.
    """

    def __init__(self, name: str) -> None:
        self.manner = Manner()
        """Holds from the next event."""
        self._name = name
        self._items = 0
        self._open: Item | None = None
        self._committed: deque[Item] = deque()  # not complete yet; bound: finals that a session lets wait
        self._history: OrderedDict[str, Item] = OrderedDict()  # bound: ITEMS_KEPT
        self._by_utterance: dict[int, Item] = {}  # of open and committed items
        self._requests: deque[_Request] = deque()  # bound: what is received and not judged, 100 ms for each at least
        self._committed_s = 0.0  # where the last item or clear ended

    # --- what is heard

    def speech_started(self, at_s: float) -> list[ServerEvent]:
        """Somebody speaks, from stream time `at_s` on."""
        before = self._open
        if before is not None and before.stopped_s is not None and not self.manner.is_manual:
            # A silence ended it before what the client asked for: a source that is ahead is not heard otherwise.
            return [*self._end(before, before.stopped_s), *self.speech_started(at_s)]
        if self._open is None:
            padded_s = max(self._committed_s, at_s - self.manner.padding_s)
            self._open = self._new_item(self._committed_s if self.manner.is_manual else padded_s)
        item = self._open
        if self.manner.is_manual or item.is_announced:
            return []
        item.is_announced = True
        return [SpeechStartedTold(item_id=item.id, audio_start_ms=_ms(item.start_s))]

    def utterance_began(self, number: int) -> None:
        """An utterance belongs to the item that is open."""
        if self._open is not None:
            self._open.pieces[number] = Piece()
            self._by_utterance[number] = self._open

    def heard(self, number: int, text: str, words: Sequence[Word]) -> list[ServerEvent]:
        """What will not change of an utterance, or its final, and the words of it; there may be more of them."""
        item = self._by_utterance.get(number)
        if item is None:
            return []
        piece = item.pieces[number]
        piece.text, piece.words = text, words
        return self._deltas(item)

    def _deltas(self, item: Item) -> list[ServerEvent]:
        if not self._is_told(item):
            return []
        return [
            TranscriptionDelta(item_id=item.id, delta=text, logprobs=probs if self.manner.with_logprobs else None)
            for text, probs in item.advance()
        ]

    def settled(self, number: int, error: Mapping[str, object] | None) -> list[ServerEvent]:
        """Nothing more is heard of an utterance; `error` says why it has no final."""
        item = self._by_utterance.pop(number, None)
        if item is None:
            return []
        item.pieces[number].is_settled = True
        if error is not None:
            item.error = dict(error)
        return [*self._deltas(item), *self._completed()]

    def speech_stopped(self, at_s: float) -> list[ServerEvent]:
        """Nobody speaks any more, since stream time `at_s`."""
        item = self._open
        if self.manner.is_manual or item is None:
            return []
        if self._requests:
            item.stopped_s = at_s  # the client's commit or clear ends the item, unless somebody speaks before that
            return []
        return self._end(item, at_s)

    def _end(self, item: Item, at_s: float) -> list[ServerEvent]:
        told: list[ServerEvent] = []
        if item.is_announced:
            told.append(SpeechStoppedTold(item_id=item.id, audio_end_ms=_ms(at_s)))
        self._committed_s = at_s
        return told + self._commit(item, at_s)

    def finalized(self, at_s: float) -> list[ServerEvent]:
        """All audio before has been judged: carry out what the client asked for there."""
        told: list[ServerEvent] = []
        while self._requests and self._requests[0].at_s <= at_s:
            request = self._requests.popleft()
            item, self._open = self._open, None
            if request.is_clear:
                if item is not None:
                    item.is_forgotten = True
                    self._by_utterance = {n: other for n, other in self._by_utterance.items() if other is not item}
                told.append(Cleared())
            else:
                told += self._commit(item or self._new_item(self._committed_s), request.at_s)
            self._committed_s = max(self._committed_s, request.at_s)
        return told

    def _commit(self, item: Item, end_s: float) -> list[ServerEvent]:
        item.end_s = end_s
        self._open = None
        previous = next(reversed(self._history), None)
        self._history[item.id] = item
        if len(self._history) > ITEMS_KEPT:
            self._history.popitem(last=False)
        self._committed.append(item)
        told: list[ServerEvent] = [Committed(item_id=item.id, previous_item_id=previous)]
        user_item = _user_item(item)
        if self.manner.is_legacy:
            told.append(ItemTold(type="conversation.item.created", previous_item_id=previous, item=user_item))
        else:
            told.append(ItemTold(type="conversation.item.added", previous_item_id=previous, item=user_item))
            told.append(ItemTold(type="conversation.item.done", previous_item_id=previous, item=user_item))
        return told + self._completed()

    def _completed(self) -> list[ServerEvent]:
        """Tell the items that are complete, in order."""
        told: list[ServerEvent] = []
        while self._committed and self._committed[0].is_complete:
            item = self._committed.popleft()
            if self._is_told(item):
                told.append(self._outcome(item))
            item.pieces.clear()
        return told

    def _outcome(self, item: Item) -> ServerEvent:
        if item.error is not None:
            return TranscriptionFailed(item_id=item.id, error=told_detail(item.error))
        item.transcript = item.text
        return TranscriptionCompleted(
            item_id=item.id,
            transcript=item.text,
            logprobs=item.logprobs if self.manner.with_logprobs else None,
            usage=DurationUsage(seconds=round(max(0.0, (item.end_s or 0.0) - item.start_s), 3)),
        )

    def given_up(self) -> list[ServerEvent]:
        """The connection is over: of what is not complete nothing more comes."""
        told: list[ServerEvent] = [
            TranscriptionFailed(item_id=item.id, error=FINAL_LOST) for item in self._committed if self._is_told(item)
        ]
        self._committed.clear()
        return told

    # --- what the client asks for

    def ask(self, now_s: float, *, is_clear: bool) -> bool:
        """Have a commit or a clear carried out once what was received until `now_s` has been judged.

        Returns:
            Whether that has to be waited for; a clear of nothing has not.

        Raises:
            RealtimeError: INPUT_AUDIO_BUFFER_COMMIT_EMPTY.
        """
        last = self._requests[-1] if self._requests else None
        since_s = now_s - max(self._committed_s, last.at_s if last else 0.0)
        if not is_clear and since_s + FRAME_S / 2 < COMMIT_LEAST_S:  # what is resampled comes some ms late
            raise RealtimeError(
                "INPUT_AUDIO_BUFFER_COMMIT_EMPTY",
                f"The buffer has {max(0.0, since_s) * 1000:.0f} ms of audio; a commit needs 100 ms at least.",
                "Send audio before the commit.",
            )
        if is_clear and since_s <= 0.0 and (last.is_clear if last else self._open is None):
            return False
        self._requests.append(_Request(now_s, is_clear))
        return True

    def find(self, item_id: str, *, verb: str) -> UserItem:
        """An item that was committed.

        Raises:
            RealtimeError: ITEM_…_INVALID_ITEM_ID.
        """
        return _user_item(self._found(item_id, verb))

    def forget(self, item_id: str) -> None:
        """Tell nothing more of an item.

        Raises:
            RealtimeError: ITEM_DELETE_INVALID_ITEM_ID.
        """
        self._found(item_id, "delete").is_forgotten = True
        del self._history[item_id]

    def _found(self, item_id: str, verb: str) -> Item:
        item = self._history.get(item_id)
        if item is None:
            raise RealtimeError(
                f"ITEM_{verb.upper()}_INVALID_ITEM_ID",
                f"`item_id`: there is no item {item_id[:80]!r}.",
                f"Items are there once they are committed; the last {ITEMS_KEPT} are kept.",
                param="item_id",
            )
        return item

    def _new_item(self, start_s: float) -> Item:
        self._items += 1
        return Item(f"item_{self._name}_{self._items}", start_s)

    def _is_told(self, item: Item) -> bool:
        return self.manner.transcribes and not item.is_forgotten


def _user_item(item: Item) -> UserItem:
    return UserItem(id=item.id, content=[InputAudio(transcript=item.transcript)])


def _ms(time_s: float) -> int:
    return round(time_s * 1000)
