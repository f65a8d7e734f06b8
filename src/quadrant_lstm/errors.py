"""Defines the error of a user's mistake: one line that names the key or file, the value, the rule and the remedy."""

import errno

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errno of an OSError: disk full, over quota, read-only


class UserError(Exception):
    """Ends a command with exit status 2 and this text as the only line on stderr; in a sweep it fails one job."""

    def __init__(self, text: object):
        super().__init__(" ".join(str(text).split()))
