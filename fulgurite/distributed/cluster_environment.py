"""Lightning's ClusterEnvironment for externally launched ranks."""

from __future__ import annotations

from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from fulgurite.core.errors import ConfigError
from fulgurite.distributed.launch_env import LaunchInfo


class ExternalLaunchEnvironment(TorchElasticEnvironment):
    """Ranks of torchrun, srun, mpiexec or a hand-set RANK, after their rendezvous, which sets the address of rank 0.

    Lightning's MPIEnvironment needs mpi4py, its SLURMEnvironment more variables than srun must set, and its
    LightningEnvironment starts more processes for a rank with RANK but without LOCAL_RANK.
    """

    def __init__(self, launch: LaunchInfo) -> None:
        super().__init__()
        self.launch = launch

    def world_size(self) -> int:
        """Return the world size."""
        return self.launch.world_size

    def global_rank(self) -> int:
        """Return the global rank."""
        return self.launch.rank

    def local_rank(self) -> int:
        """Return the rank on this node."""
        return self.launch.local_rank or 0

    def node_rank(self) -> int:
        """Return the rank of this node."""
        return self.launch.node_rank or 0

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Raise if the trainer expects other ranks than the launcher started."""
        launch = self.launch
        here = launch.local_world_size or launch.world_size
        if num_devices * num_nodes == launch.world_size and num_devices == here:
            return
        nodes, rest = divmod(launch.world_size, here)
        remedy = "Start equally many on each node" if rest else f"Set trainer.devices={here} trainer.num_nodes={nodes}"
        rule = f"{launch.launcher} started {launch.world_size} processes, {here} on this node"
        raise ConfigError([f"trainer.devices={num_devices} trainer.num_nodes={num_nodes}: {rule}. {remedy}."])
