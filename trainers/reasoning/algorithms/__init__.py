"""One file per algorithm that turns judged samples into what is learned."""
