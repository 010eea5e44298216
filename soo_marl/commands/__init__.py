"""The commands of ``soo-marl``, one module each: a class whose fields are the options, and ``run``, which does it."""
