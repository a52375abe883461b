"""This room has the files of a project, as `mhrctl init` writes them: templates, and example tasks."""
