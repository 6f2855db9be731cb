"""For tests of what is built on this package: virtual time, faults on demand, what a tree looks like."""

from supervisors.processes.signals import wait_down

from ._fault_plan import Fault, FaultPlan, InjectedFault, Strike, crash, hang, slow
from ._trees import assert_no_process_left, assert_restarted, assert_tree, outline
from ._virtual_time import advance, run_in_virtual_time, settle, virtual_clock

__all__ = [
    "Fault",
    "FaultPlan",
    "InjectedFault",
    "Strike",
    "advance",
    "assert_no_process_left",
    "assert_restarted",
    "assert_tree",
    "crash",
    "hang",
    "outline",
    "run_in_virtual_time",
    "settle",
    "slow",
    "virtual_clock",
    "wait_down",
]
