def encode(word: bytes, merges: list[tuple[int, int]]) -> list[int]:
    ids = list(word)
    for new_id, pair in enumerate(merges, start=256):
        i = 0
        while i < len(ids) - 1:
            if (ids[i], ids[i + 1]) == pair:
                ids[i : i + 2] = [new_id]
            i += 1
    return ids
