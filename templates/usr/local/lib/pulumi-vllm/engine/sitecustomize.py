"""Python imports this in each process of vLLM: it looks for unreachable objects less often.

With hundreds of answers at once, every search goes through all objects of all of them. One H200 at 512 chats: 49 ms
between two tokens in the median with these numbers, 60 and 64 without (lab/notes/performance.md).
"""

import gc

gc.set_threshold(50_000, 20, 100)
