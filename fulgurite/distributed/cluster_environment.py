"""What Lightning asks about processes that were started from outside, answered from what the launcher has told."""

from __future__ import annotations

import os

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

from fulgurite.core.errors import ConfigError
from fulgurite.distributed.launch_env import LaunchInfo


class ExternalLaunchEnvironment(ClusterEnvironment):
    """The processes of torchrun, srun, mpiexec, or of whoever set RANK; they have met, so where and who is known.

    Lightning has a class for each; that of MPI needs mpi4py, that of SLURM more variables than srun must set, and a
    process with RANK but without LOCAL_RANK would start others.

    Args:
        launch: Of this process, complete.
    """

    def __init__(self, launch: LaunchInfo) -> None:
        super().__init__()
        self.launch = launch

    @property
    def creates_processes_externally(self) -> bool:
        """Tell that all processes are there."""
        return True

    @property
    def main_address(self) -> str:
        """Host of rank 0."""
        return os.environ["MASTER_ADDR"]

    @property
    def main_port(self) -> int:
        """Port at which rank 0 is found."""
        return int(os.environ["MASTER_PORT"])

    @staticmethod
    def detect() -> bool:
        """Tell whether this is the place; it is given, not detected."""
        return False

    def world_size(self) -> int:
        """Return the number of processes."""
        return self.launch.world_size

    def set_world_size(self, size: int) -> None:
        """Do nothing: the launcher has said it."""

    def global_rank(self) -> int:
        """Return the rank among all."""
        return self.launch.rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the launcher has said it."""

    def local_rank(self) -> int:
        """Return the rank on this machine."""
        return self.launch.local_rank or 0

    def node_rank(self) -> int:
        """Return the number of this machine."""
        return self.launch.node_rank or 0

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Refuse a trainer that counts other processes than were started.

        Raises:
            ConfigError: One line with what to set.
        """
        launch = self.launch
        here = launch.local_world_size or launch.world_size
        if num_devices * num_nodes == launch.world_size and num_devices == here:
            return
        nodes, odd = divmod(launch.world_size, here)
        remedy = f"trainer.devices={here} trainer.num_nodes={nodes}" if not odd else "as many processes on each machine"
        raise ConfigError(
            [
                (
                    f"trainer.devices={num_devices} trainer.num_nodes={num_nodes}: {launch.launcher} has started "
                    f"{launch.world_size} processes, {here} on this machine; use {remedy}"
                )
            ]
        )
