"""Python imports this in each process of vLLM: it looks for unreachable objects less often.

With hundreds of answers at once, every search goes through all objects of all of them. One H200 at 512 chats, one run
each: the same rate, 52 ms between two tokens in the mean in place of 55, first tokens later (lab/notes/performance.md).
"""

import gc

gc.set_threshold(50_000, 20, 100)
