"""How each kind of program is overheard: plain functions, transformers, and an explicit line."""
