"""After the run, or beside it: a model, a set of prompts, and one question; needs the extra ``analysis``."""
