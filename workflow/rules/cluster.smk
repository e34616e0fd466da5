"""Where jobs run: no more on this machine's GPUs than they have slots, or wherever a cluster's scheduler puts them."""

from dataclasses import replace

from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry


def limit_gpu_jobs():
    """Make Snakemake count the slots of this machine's GPUs.

    A machine without a GPU has the limit 0, to which Snakemake then reduces what a job asks for.
    """
    try:
        workflow.register_resource("gpu", devices.slots())
    except devices.DeviceError as error:
        sys.exit(str(error))


def share_volume():
    """Have Snakemake's Kubernetes executor leave files where they are: all pods mount the volume that they lie on.

    It takes for granted that pods share nothing, and would carry the declared files of each job, and those alone, to a
    storage provider and back. The provider that it demands is named in the profile and not used.
    """
    settings = {"default_storage_provider": None, "default_storage_prefix": None}
    workflow.storage_settings = replace(workflow.storage_settings, **settings)
    executor = ExecutorPluginRegistry().get_plugin("kubernetes")
    executor.common_settings.auto_deploy_default_storage_provider = False


on_a_cluster = workflow.resource_settings.nodes is not None
if not on_a_cluster and "gpu" not in workflow.global_resources:
    limit_gpu_jobs()
if on_a_cluster and workflow.storage_settings.default_storage_provider == "fs":
    share_volume()
