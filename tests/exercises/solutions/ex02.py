from collections import Counter
from itertools import pairwise


def merge(ids, pair, new_id):
    merged = []
    for one in ids:
        merged.append(one)
        if tuple(merged[-2:]) == pair:
            merged[-2:] = [new_id]
    return merged


def learn(words: list[list[int]], n_merges: int) -> list[tuple[int, int]]:
    merges = []
    for new_id in range(256, 256 + n_merges):
        counts = Counter(pair for ids in words for pair in pairwise(ids))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        words = [merge(ids, best, new_id) for ids in words]
    return merges
