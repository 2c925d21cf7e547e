"""Code agents that ship with the runner. Each is a module with `run(request, files, out)`; they run in the sandbox."""
