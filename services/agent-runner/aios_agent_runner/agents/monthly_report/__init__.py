"""The monthly client report: `compute.run` computes a month, `render.run` writes its documents."""
