"""Claims: published results, each restated as a study with its paper, and the register of what became of them."""
