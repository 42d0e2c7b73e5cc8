"""Recordings: where they and their jobs are kept, for how long, how many at once."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_data_path

from mediaserver.settings.room import Group, Room

knob = Group.RECORDINGS.knob


class RecordingSettings(Room):
    """The settings of the group `recordings`."""

    max_recordings: int = knob(
        4,
        "Most recordings transcribed at once, 50 MB each; further ones wait, and uploads that somebody waits for get "
        "503 once twice as many are here.",
        ge=1,
    )
    data_dir: Path = knob(
        user_data_path("voiceforge"),
        "Where uploaded recordings are kept until they are transcribed, and the SQLite database of jobs. "
        "Workers on other machines need the same folder.",
    )
    database_url: str | None = knob(
        None,
        "Database of jobs: sqlite:////path/to/jobs.db or postgresql://user:password@host/name; unset is `jobs.db` in "
        "`data_dir`.",
    )
    jobs_broker_url: str | None = knob(
        None,
        "Redis (redis://host:6379/0) through which `voiceforge worker` gets jobs; unset, this server runs them itself.",
    )
    jobs_concurrency: int = knob(
        2,
        "Most recordings transcribed at once; 0 leaves them to other servers with the same database.",
        ge=0,
        le=64,
    )
    job_keep_s: int = knob(
        604_800,
        "Seconds for which ended jobs and their results are kept, where a job does not say.",
        ge=60,
    )
    upload_max_bytes: int = knob(2_147_483_648, "Largest recording in bytes, uploaded or fetched.", ge=1000)

    @property
    def jobs_database_url(self) -> str:
        """`database_url`, or SQLite's in `data_dir`."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'jobs.db'}"
