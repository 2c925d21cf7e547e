"""What a person sees: rich renderables made of answers."""
