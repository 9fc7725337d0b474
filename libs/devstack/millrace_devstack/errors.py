"""What goes wrong when a machine is made to run the stack, told together with the fix."""

from millrace_core.errors import Fatal


class StackError(Fatal):
    """The local stack could not be started."""
