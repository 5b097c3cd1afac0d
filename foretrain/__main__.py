"""`python -m foretrain`, which is also what `torchrun -m foretrain run ...` starts."""

from foretrain.cli import main

main()
