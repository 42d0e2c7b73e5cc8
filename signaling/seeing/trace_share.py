"""How many sessions are traced, whatever strangers say: an extra, as `trace_export`."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.context import Context, create_key, get_value, set_value
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, TraceState
from opentelemetry.util.types import Attributes

_IS_STRANGERS = create_key("caller's word does not count")


def of_stranger(caller: Context) -> Context:
    """A caller's context, whose word on whether it is traced does not count."""
    return set_value(_IS_STRANGERS, True, caller)


class OwnShare(Sampler):
    """A sampler that strangers do not overrule: their traces are continued as often as any, whatever they say and
    whichever trace id they have chosen. That theirs is not to be traced holds.

    Args:
        own: of the node.
    """

    def __init__(self, own: Sampler) -> None:
        self._own = own
        self._ids = RandomIdGenerator()

    def should_sample(  # noqa: PLR0917 - as the SDK calls it
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: trace.SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """As `Sampler.should_sample`."""
        context = Context() if parent_context is None else parent_context
        parent = trace.get_current_span(context).get_span_context()
        if parent.is_valid and not parent.is_remote:  # all of a session, or nothing of it
            decision = Decision.RECORD_AND_SAMPLE if parent.trace_flags.sampled else Decision.DROP
            return SamplingResult(decision, attributes)  # those that are not returned are lost
        if parent.is_valid and parent.trace_flags.sampled and get_value(_IS_STRANGERS, context):
            context, trace_id = Context(), self._ids.generate_trace_id()
        return self._own.should_sample(context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """As `Sampler.get_description`."""
        return f"OwnShare{{{self._own.get_description()}}}"
