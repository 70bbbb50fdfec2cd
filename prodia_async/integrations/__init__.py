"""
What a service, a notebook or a dashboard puts around a client.

Each module needs the extra of its name, and is imported on its own::

    from prodia_async.integrations.starlette import install, job_response
"""
