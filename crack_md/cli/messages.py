"""What the package logs, shown to whoever runs a command."""

import logging
import sys

PACKAGE = "crack_md"


class _Lines(logging.Handler):
    """Prints every message as a plain line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        # stderr as it is now: a progress bar puts lines above itself
        print(self.format(record), file=sys.stderr)


def show_messages() -> None:
    """Print from now on what the package logs, as how long compiling took."""
    log = logging.getLogger(PACKAGE)
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _Lines) for handler in log.handlers):
        log.addHandler(_Lines())


def hush(quiet: bool) -> bool:
    """Let warnings alone pass where ``--quiet`` is given; return what was given."""
    if quiet:
        logging.getLogger(PACKAGE).setLevel(logging.WARNING)
    return quiet
