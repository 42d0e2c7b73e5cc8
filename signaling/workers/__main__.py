"""`python -m signaling.workers worker-1`: what the supervisor runs. The argument is for whoever looks at `ps`."""

import sys

from signaling.workers.worker import run

sys.exit(run())
