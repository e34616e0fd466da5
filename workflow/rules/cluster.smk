"""Where jobs run: no more on this machine's GPUs than they have slots, or wherever a cluster's scheduler puts them."""


def limit_gpu_jobs():
    """Make Snakemake count the slots of this machine's GPUs.

    A machine without a GPU has the limit 0, to which Snakemake then reduces what a job asks for.
    """
    try:
        workflow.register_resource("gpu", devices.slots())
    except devices.DeviceError as error:
        sys.exit(str(error))


on_a_cluster = workflow.resource_settings.nodes is not None
if not on_a_cluster and "gpu" not in workflow.global_resources:
    limit_gpu_jobs()
