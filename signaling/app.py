"""The application: everything is wired here and nowhere else. `serving.py` runs it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from mediaserver.audio.turn import TurnPool
from mediaserver.audio.vad import VadPool
from mediaserver.jobs.service import Jobs
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.answering import Answering
from signaling.auth.accounts import Accounts
from signaling.auth.guard import Guard
from signaling.auth.revocations import Revocations
from signaling.cluster.hop import Hop
from signaling.cluster.membership import Membership
from signaling.cluster.places import Place
from signaling.cluster.shared import Shared
from signaling.cluster.state import State
from signaling.crowds import Crowds
from signaling.eventlogs import EventLogs
from signaling.hsts import Hsts
from signaling.jobs_bell import JobsBell
from signaling.lifetime import Background, Lifetime
from signaling.limits import SDP_MAX_BYTES, Admission, Gate, ServedEngine
from signaling.outbound import Outbound
from signaling.privacy.endings import Endings
from signaling.privacy.others import Others
from signaling.privacy.service import Privacy
from signaling.problems import in_dialect, problems_middleware
from signaling.recordings import Recordings
from signaling.registry import Registry
from signaling.resume.moves import Moves
from signaling.resume.returning import Returning
from signaling.routes.admin import Admin
from signaling.routes.deepgram.door import PATHS as DEEPGRAM_PATHS
from signaling.routes.deepgram.door import Deepgram
from signaling.routes.deepgram.models import PATH as MODELS_PATH
from signaling.routes.deepgram.models import write_model_refusal
from signaling.routes.deepgram.refusals import write_refusal
from signaling.routes.docs import Docs
from signaling.routes.events import Events
from signaling.routes.health import Health
from signaling.routes.jobs import Transcriptions
from signaling.routes.jobs_submit import Submissions
from signaling.routes.jobs_uploads import Uploads
from signaling.routes.native import Native
from signaling.routes.openai_errors import refusal_response
from signaling.routes.openai_realtime import PREFIX as OPENAI_REALTIME
from signaling.routes.openai_realtime import OpenAIRealtime
from signaling.routes.openai_rest import PREFIX as OPENAI_AUDIO
from signaling.routes.openai_rest import OpenAIRest
from signaling.routes.page import STATIC_DIR, Page
from signaling.routes.privacy import PrivacyDoor
from signaling.routes.usage import UsageReport
from signaling.routes.whip import PeerFactory, Whip
from signaling.seeing.audit import Audit
from signaling.seeing.audit_door import AuditDoor, SessionRecords
from signaling.seeing.node_metrics import Crew, NodeMetrics
from signaling.seeing.node_watch import NodeWatch
from signaling.seeing.requests import Requests
from signaling.seeing.session_watch import SessionWatch
from signaling.seeing.trace_setup import Traces, open_traces
from signaling.session_webhooks import SessionWebhooks
from signaling.sessions import Models, SessionFactory
from signaling.usage.features import Prices
from signaling.usage.meter import Meter
from signaling.usage.quota import Quota
from stun_turn.servers import IceServers

METRICS = web.AppKey("metrics", Metrics)
REGISTRY = web.AppKey("registry", Registry)
ADMISSION = web.AppKey("admission", Admission)
MODELS = web.AppKey("models", Models)
JOBS = web.AppKey("jobs", Jobs)
RECORDINGS = web.AppKey("recordings", Recordings)
ACCOUNTS = web.AppKey("accounts", Accounts)
MEMBER: web.AppKey[Membership | None] = web.AppKey("member", Membership)
"""None where there is only this process."""
AUDIT = web.AppKey("audit", Audit)
SHARED = web.AppKey("shared", Shared)
PRIVACY = web.AppKey("privacy", Privacy)


def make_app(
    settings: Settings,
    *,
    metrics: Metrics,
    engine: ServedEngine | None = None,
    vad: VadPool | None = None,
    turns: TurnPool | None = None,
    make_peer: PeerFactory | None = None,
    static_dir: Path = STATIC_DIR,
    state: State | None = None,
    place: Place | None = None,
    crew: Crew | None = None,
) -> web.Application:
    """The front door.

    Args:
        settings: of this node.
        metrics: shown at /metrics.
        engine, vad, turns: used for every session and closed by the caller. None: set them in `app[MODELS]` once they
            are loaded; until there is an engine, sessions are refused with MODEL_LOADING.
        make_peer: makes the server's end of a session; a `Peer` over `engine` and `vad` if None.
        static_dir: where the built page lies.
        state: what several processes share; the caller closes it. A memory of this one's own if None.
        place: which of several processes this is, with where its hop listens; None: there is only this one.
        crew: which of several workers of one supervisor, if there is one.

    Raises:
        ConfigError: INVALID_ICE_SERVERS, INVALID_ICE_URL, NOT_A_TURN_URL, or INVALID_URL for `webhook_url`.
    """
    audit = Audit(settings, metrics=metrics)
    audit_door = AuditDoor(audit)
    requests = Requests(trusted_proxies=settings.trusted_proxies)
    traces = open_traces(settings, metrics)
    watch = SessionWatch(
        [*([SessionRecords(audit)] if audit.is_on else []), *([] if traces is None else [traces.of_sessions])]
    )
    accounts = Accounts(settings, state=state)
    models = Models(engine, vad, turns)
    ice_servers = IceServers.from_settings(settings)
    meter = Meter(accounts.database, settings)
    registry = Registry(
        max_sessions=settings.max_sessions, metrics=metrics, place_id="" if place is None else place.place_id
    )
    admission = Admission(engine=lambda: models.engine, require_room=registry.require_room)
    membership = partial(
        Membership,
        settings=settings,
        registry=registry,
        admission=admission,
        metrics=metrics,
        on_refused=lambda request, code: audit_door.hop_refused(requests.named(request), code),
    )
    member = None if state is None or place is None else membership(state, place, engine=lambda: models.engine)
    is_away = None if member is None else member.places.is_away
    shared = Shared(state, settings=settings, keys=accounts.keys, is_away=is_away)
    registry.lease_of = shared.leases.resumed
    outbound = Outbound(settings=settings, metrics=metrics)
    webhooks = SessionWebhooks(settings=settings, outbound=outbound, metrics=metrics)
    sessions = SessionFactory(
        settings=settings, models=models, metrics=metrics, webhooks=webhooks, meter=meter, watch=watch
    )
    registry.on_added += [meter.opened, watch.added]
    answering = Answering(registry=registry, admission=admission)
    gate = Gate(bound_host=settings.host, cors_origins=settings.cors_origins)
    logs = EventLogs(kept_kib=settings.event_log_kib, linger_s=settings.events_linger_s)
    move = partial(Moves, registry=registry, settings=settings, metrics=metrics)
    moves = None if state is None or member is None else move(state, member)
    returning = Returning(
        registry=registry,
        keys=accounts.keys,
        admission=admission,
        trusted_proxies=settings.trusted_proxies,
        elsewhere=None if moves is None else moves.elsewhere,
    )
    if moves is not None and member is not None:
        member.hop.goes_on_at, member.hop.lives_here = moves.elsewhere.goes_on_at, returning.has
    whip = Whip(
        registry=registry,
        answering=answering,
        make_peer=make_peer or sessions.peer,
        logs=logs,
        webhooks=webhooks,
        returning=returning,
        ice_servers=ice_servers,
        metrics=metrics,
    )
    recordings = Recordings(
        settings=settings, metrics=metrics, admission=admission, vad=lambda: models.vad, meter=meter
    )
    jobs = Jobs(
        settings,
        metrics=metrics,
        transcriber=recordings.loaded,
        observer=None if traces is None else traces.of_jobs,
    )
    transcriptions = (
        Submissions(jobs=jobs, admission=admission, recorder=recordings.loaded, settings=settings, metrics=metrics),
        Transcriptions(jobs=jobs),
        Uploads(jobs=jobs, admission=admission, settings=settings),
    )
    deepgram = Deepgram(
        sessions=sessions,
        registry=registry,
        admission=admission,
        recordings=recordings,
        outbound=outbound,
        tokens=accounts.tokens,
        metrics=metrics,
    )
    realtime = OpenAIRealtime(
        sessions=sessions,
        answering=answering,
        registry=registry,
        admission=admission,
        metrics=metrics,
        state=shared.state,
    )
    privacy = Privacy(
        settings,
        database=accounts.database,
        jobs=jobs,
        logs=logs,
        audit=audit,
        endings=Endings(registry=registry, outbound=outbound, flush=meter.flush),
        others=None if member is None else Others(shared.state, member.places),
    )
    revocations = Revocations(keys=accounts.keys, registry=registry)
    guard = Guard(
        settings=settings,
        keys=accounts.keys,
        tokens=accounts.tokens,
        secrets=realtime.client_secrets,
        leases=shared.leases,
        meter=meter,
        metrics=metrics,
    )
    node_watch = NodeWatch(
        settings=settings,
        metrics=metrics,
        admission=admission,
        registry=registry,
        engine=lambda: models.engine,
        database=accounts.database,
        usage_age_s=lambda: meter.unwritten_s,
        state_is_away=is_away,
    )
    health = Health(
        admission=admission,
        metrics=metrics,
        of_node=None if crew is None or member is None else NodeMetrics(metrics, crew=crew, member=member),
        others_take=(lambda: False) if member is None else member.others_of_node_take,
    )

    app = web.Application(
        middlewares=_middlewares(
            requests=requests,
            gate=gate,
            audit=audit_door,
            guard=guard,
            hop=None if member is None else member.hop,
            traces=traces,
        ),
        client_max_size=SDP_MAX_BYTES,
    )
    app[METRICS], app[REGISTRY], app[ADMISSION], app[MODELS] = metrics, registry, admission, models
    app[RECORDINGS], app[ACCOUNTS], app[AUDIT], app[SHARED] = recordings, accounts, audit, shared
    docs = Docs(app, host=f"{settings.host}:{settings.port}")
    app[JOBS], app[MEMBER], app[PRIVACY] = jobs, member, privacy
    for door in (
        whip,
        Native(sessions=sessions, registry=registry, admission=admission, returning=returning, metrics=metrics),
        Events(logs=logs, locate=returning.locate),
        *transcriptions,
        deepgram,
        OpenAIRest(recordings=recordings, settings=settings, metrics=metrics),
        realtime,
        Admin(accounts=accounts),
        UsageReport(database=accounts.database, prices=Prices(settings.price_per_minute)),
        PrivacyDoor(privacy=privacy),
        health,
        Page(settings=settings, engine=lambda: models.engine, ice_servers=ice_servers, static_dir=static_dir),
        docs,
    ):
        app.add_routes(door.routes())
    on_response = [gate.on_response, Hsts(settings).on_response, requests.on_response, audit_door.on_response]
    app.on_response_prepare.extend([*on_response, *([] if traces is None else [traces.on_response])])

    lifetime = Lifetime(
        settings=settings,
        metrics=metrics,
        accounts=accounts,
        meter=meter,
        admission=admission,
        registry=registry,
        logs=logs,
        jobs=jobs,
        closed_last=(
            deepgram,
            webhooks,
            outbound,
            *([] if moves is None else [moves]),
            *([] if member is None else [member]),
            shared,
        ),
        background=(
            revocations,
            Quota(meter=meter, registry=registry),
            privacy,
            node_watch,
            shared,
            *([] if moves is None else [moves]),
            *_among_others(member, jobs),
        ),
        audit=audit,
        traces=traces,
        on_lag=node_watch.lagged,
    )
    lifetime.of(app)
    return app


def _among_others(member: Membership | None, jobs: Jobs) -> list[Background]:
    return [] if member is None else [member, JobsBell(jobs, member.state)]


def _middlewares(
    *, requests: Requests, gate: Gate, audit: AuditDoor, guard: Guard, hop: Hop | None, traces: Traces | None
) -> list[Middleware]:
    """From the outermost to the innermost."""
    return [
        Crowds().middleware,
        *([] if hop is None else [hop.arriving]),  # it says where the request comes from
        requests.middleware,
        problems_middleware,
        in_dialect(OPENAI_AUDIO, refusal_response),
        in_dialect(OPENAI_REALTIME, refusal_response),
        *(in_dialect(path, write_refusal) for path in DEEPGRAM_PATHS),
        in_dialect(MODELS_PATH, write_model_refusal),
        gate.middleware,  # within the dialects, so that vendors' clients can read its refusals too
        *([] if hop is None else [hop.leaving]),  # before anybody asks who it is: that is asked where it arrives
        audit.refusals,
        guard.middleware,
        *([] if traces is None else [traces.of_sessions.middleware]),
        audit.actions,
    ]
