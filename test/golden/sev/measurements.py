#!/usr/bin/env python3
"""Launch measurements, secrets and ciphertext, computed again from the formulas in docs/specs.md ("SEV").

Knows nothing of the TypeScript. Standard library only; AES is written out below (FIPS 197).
    python3 test/golden/sev/measurements.py > test/golden/sev/measurements.json
"""
import hashlib
import hmac
import json
import platform
import struct


# ---- AES-128, from FIPS 197 ----
def _sbox():
    p, q, box = 1, 1, [0] * 256
    while True:
        p = p ^ ((p << 1) & 0xFF) ^ (0x1B if p & 0x80 else 0)
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q &= 0xFF
        if q & 0x80:
            q ^= 0x09
        rot = lambda n: ((q << n) | (q >> (8 - n))) & 0xFF
        box[p] = q ^ rot(1) ^ rot(2) ^ rot(3) ^ rot(4) ^ 0x63
        if p == 1:
            break
    box[0] = 0x63
    return box


SBOX = _sbox()


def xtime(a):
    return ((a << 1) ^ 0x1B) & 0xFF if a & 0x80 else a << 1


def expand(key):
    words = [list(key[i : i + 4]) for i in range(0, 16, 4)]
    rcon = 1
    for i in range(4, 44):
        t = list(words[i - 1])
        if i % 4 == 0:
            t = [SBOX[b] for b in t[1:] + t[:1]]
            t[0] ^= rcon
            rcon = xtime(rcon)
        words.append([a ^ b for a, b in zip(words[i - 4], t)])
    return [sum(words[4 * r : 4 * r + 4], []) for r in range(11)]


def aes(key, block):
    keys = expand(key)
    s = [a ^ b for a, b in zip(block, keys[0])]
    for r in range(1, 11):
        s = [SBOX[b] for b in s]
        s = [s[(i + 4 * (i % 4)) % 16] for i in range(16)]
        if r < 10:
            mixed = []
            for c in range(0, 16, 4):
                a = s[c : c + 4]
                every = a[0] ^ a[1] ^ a[2] ^ a[3]
                mixed += [a[i] ^ every ^ xtime(a[i] ^ a[(i + 1) % 4]) for i in range(4)]
            s = mixed
        s = [a ^ b for a, b in zip(s, keys[r])]
    return bytes(s)


assert aes(bytes(range(16)), bytes.fromhex("00112233445566778899aabbccddeeff")).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


def ctr(key, counter, data):
    out, n = b"", int.from_bytes(counter, "big")
    for at in range(0, len(data), 16):
        pad = aes(key, (n % 2**128).to_bytes(16, "big"))
        out += bytes(a ^ b for a, b in zip(data[at : at + 16], pad))
        n += 1
    return out


# ---- the formulas ----
def le32(n):
    return struct.pack("<I", n)


def mac(key, *pieces):
    return hmac.new(key, b"".join(pieces), hashlib.sha256).digest()


def derive(key, label, length, context=b""):
    out = b""
    for i in range((length + 31) // 32):
        out += mac(key, le32(i + 1), label.encode() + b"\0", context, le32(length * 8))
    return out[:length]


class Platform:
    def __init__(self, seed):
        self.seed, self.drawn = seed, 0

    def draw(self, length):
        self.drawn += 1
        return derive(self.seed, "platform-random", length, le32(self.drawn - 1))

    def agree(self, public):
        return mac(derive(self.seed, "platform-agreement", 32), public)


API = bytes([1, 51, 3])


def tweak(key, address):
    t = bytes(16)
    for bit in range(4, 52):
        if address >> bit & 1:
            t = bytes(a ^ b for a, b in zip(t, aes(key, bytes([bit]) + bytes(15))))
    return t


def encrypt(key, address, data):
    out = b""
    for at in range(0, len(data), 16):
        t = tweak(key[16:], address + at)
        inner = aes(key[:16], bytes(a ^ b for a, b in zip(data[at : at + 16], t)))
        out += bytes(a ^ b for a, b in zip(inner, t))
    return out


def wrap(secret, nonce, iv, tek, tik, policy):
    master = derive(secret, "sev-master-secret", 16, nonce)
    kek, kik = derive(master, "sev-kek", 16), derive(master, "sev-kik", 16)
    wrapped = ctr(kek, iv, tek + tik)
    return nonce + wrapped + iv + mac(kik, wrapped) + mac(tik, le32(policy))


def pattern(n, start):
    return bytes((start + 7 * i) & 0xFF for i in range(n))


def current(name, seed, policy, pieces, owned=False, secret_bytes=b""):
    p = Platform(seed)
    case = {"name": name, "seed": seed.decode(), "policy": policy, "pieces": [{"address": a, "data": d.hex()} for a, d in pieces]}
    if owned:
        public, tek, tik = b"an owner's public key", pattern(16, 1), pattern(16, 99)
        session = wrap(p.agree(public), pattern(16, 3), pattern(16, 5), tek, tik, policy)
        case |= {"owner": public.hex(), "session": session.hex()}
    else:
        tek, tik = p.draw(16), p.draw(16)
    key = p.draw(32)
    case["ciphertext"] = [encrypt(key, a, d).hex() for a, d in pieces]
    digest = hashlib.sha256(b"".join(d for _, d in pieces)).digest()
    mnonce = p.draw(16)
    measure = mac(tik, b"\x04", API, le32(policy), digest, mnonce)
    case["measurement"] = (measure + mnonce).hex()
    if secret_bytes:
        iv = pattern(16, 77)
        data = ctr(tek, iv, secret_bytes)
        m = mac(tik, b"\x01", le32(0), iv, le32(len(data)), le32(len(data)), data, measure)
        case["secret"] = {
            "address": 0x9010,
            "plain": secret_bytes.hex(),
            "header": (le32(0) + iv + m).hex(),
            "data": data.hex(),
            "ciphertext": encrypt(key, 0x9010, secret_bytes).hex(),
        }
    return case


def of_2016(name, seed, policy, pieces, owner, nonce, states, length, mask):
    p = Platform(seed)
    shared = p.agree(owner)
    tik = derive(shared, "sev-2016-tik", 16, nonce)
    key = p.draw(32)
    digest = hashlib.sha256(b"".join(d for _, d in pieces)).digest()
    masked = b""
    for s in states:
        s = s[:length].ljust(length, b"\0")
        masked += bytes(a & b for a, b in zip(s, mask.ljust(length, b"\0")))
    m = mac(tik, digest, le32(policy), le32(len(states)), le32(length), hashlib.sha256(masked).digest())
    return {
        "name": name,
        "seed": seed.decode(),
        "policy": policy,
        "owner": owner.hex(),
        "nonce": nonce.hex(),
        "pieces": [{"address": a, "data": d.hex()} for a, d in pieces],
        "states": [s.hex() for s in states],
        "vcpuLength": length,
        "mask": mask.hex(),
        "ciphertext": [encrypt(key, a, d).hex() for a, d in pieces],
        "measurement": m.hex(),
    }


example = bytes.fromhex("0123456789abcdef0123456789abcdef").ljust(32, b"\0")
page = (0x2000, pattern(4096, 11))
answers = {
    "answered": f"python {platform.python_version()}",
    "current": [
        current("nothing encrypted", b"", 0, []),
        current("one block", b"", 0, [(0x1000, pattern(16, 0))]),
        current("a page and a part of another", b"a seed", 1, [page, (0x3ff0, pattern(48, 200))]),
        current("an address of 33 bits and more", b"", 0, [(0x1_2345_6780, pattern(32, 9))]),
        current("an owner's session", b"", 3, [(0x4000, pattern(64, 42))], owned=True),
        current("an owner's secret", b"x", 0, [(0x4000, pattern(16, 1))], owned=True, secret_bytes=pattern(48, 123)),
    ],
    "2016": [
        of_2016("the documented example", b"", 0, [page], example + example, bytes.fromhex("0123456789abcdef").ljust(16, b"\0"),
                [pattern(456, 17)], 30, bytes.fromhex("00ab")),
        of_2016("two vCPUs under a whole mask", b"s", 5, [(0x1000, pattern(16, 8))], pattern(64, 2), pattern(16, 4),
                [pattern(456, 1), pattern(456, 2)], 64, b"\xff" * 64),
        of_2016("state shorter than its length", b"", 4, [], pattern(64, 2), bytes(16), [pattern(20, 1)], 32, b"\x0f" * 32),
    ],
}
print(json.dumps(answers, indent=1))
