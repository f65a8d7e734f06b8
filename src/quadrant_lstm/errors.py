"""A user's mistake -> one line that names the key or file, the value, the rule and the remedy."""

import errno

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # of an OSError: full, over the quota, read-only


class UserError(Exception):
    """Ends a command with exit status 2 and its text as the one line on stderr; in a sweep, that job alone."""

    def __init__(self, text: object):
        super().__init__(" ".join(str(text).split()))
