"""A job on a standalone cluster, as the program that waits for it sees it."""

from __future__ import annotations

from pyflink.common import Configuration, JobClient
from pyflink.java_gateway import get_gateway

from headrace.operator import JobHandle

_OPTIONS = {
    "rest.address": "localhost",
    "rest.retry.max-attempts": "2",
    "rest.retry.delay": "200 ms",
}


def remote_handle(rest_port: int, job_id: str, name: str) -> JobHandle:
    """A handle of a job that another program has submitted.

    Its client gives a JobManager up after less than a second. Headrace's classes must have been
    added to this JVM: the fixture `classes`.
    """
    jvm = get_gateway().jvm
    deployment = jvm.org.apache.flink.client.deployment
    config = Configuration()
    for key, value in {**_OPTIONS, "rest.port": str(rest_port)}.items():
        config.set_string(key, value)
    descriptor = deployment.StandaloneClusterDescriptor(config._j_configuration)
    j_client = deployment.ClusterClientJobClientAdapter(
        descriptor.retrieve(deployment.StandaloneClusterId.getInstance()),
        jvm.org.apache.flink.api.common.JobID.fromHexString(job_id),
        jvm.java.lang.Thread.currentThread().getContextClassLoader(),
    )
    return JobHandle(JobClient(j_client), job_name=name, am_uid=f"headrace-{name}-am")


def polling_clients() -> int:
    """How many clients of this JVM poll Flink's REST API, such as for the end of a job."""
    threads = get_gateway().jvm.java.lang.Thread.getAllStackTraces().keySet()
    return sum("RestClusterClient-Retry" in each.getName() for each in threads)
