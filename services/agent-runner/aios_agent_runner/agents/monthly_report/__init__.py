"""The monthly client report: `compute.run` reads a month's files and computes, `render.run` writes the report and the review."""
