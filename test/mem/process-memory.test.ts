import { beforeEach, describe, expect, it } from 'vitest'
import { AddressSpace } from '../../src/mem/address-space.js'
import { FrameAllocator } from '../../src/mem/frames.js'
import { ProcessMemory } from '../../src/mem/process-memory.js'
import { PROT_NONE, PROT_READ, PROT_WRITE } from '../../src/mem/vma.js'

const PAGE = 4096
const refused = (code: string) => expect.objectContaining({ code })

describe('ProcessMemory', () => {
  let space: AddressSpace
  let frames: FrameAllocator
  let memory: ProcessMemory
  const registers: string[] = []

  beforeEach(() => {
    space = new AddressSpace()
    frames = new FrameAllocator(space, space.addRam(0, new Uint8Array(64 * PAGE)))
    registers.length = 0
    const target = {
      read: (offset: number, size: number) => {
        registers.push(`r${size} ${offset}`)
        return 0x11223344n
      },
      write: (offset: number, size: number, value: bigint) => {
        registers.push(`w${size} ${offset} ${value.toString(16)}`)
      },
    }
    space.addMmio(0x100_0000, 0x2000, target, 'registers')
    memory = new ProcessMemory(frames)
  })

  const copyIn = (addr: bigint, length: number) => {
    const into = new Uint8Array(length)
    return memory.copyIn(Number(addr), into) ? [...into] : 'EFAULT'
  }

  describe('mmap', () => {
    it('gives zeroed memory that program and kernel both see', () => {
      const map = memory.mmap(0x2000)
      expect(map.bytes.length).toBe(0x2000)
      map.bytes.set([1, 2, 3], 0xfff)
      expect(copyIn(map.vaddr + 0xffen, 5)).toEqual([0, 1, 2, 3, 0])
      expect(memory.copyOut(Number(map.vaddr) + 0x10, Uint8Array.of(9, 8))).toBe(true)
      expect([map.bytes[0x10], map.bytes[0x11]]).toEqual([9, 8])
    })

    it('is the machine RAM: the same bytes at a host physical address', () => {
      const map = memory.mmap(PAGE)
      map.bytes[5] = 0x5a
      expect(space.load(memory.hpaAt(map.vaddr) + 5, 1)).toBe(0x5an)
    })

    it('rounds up to pages, and the program still holds the length it asked for', () => {
      const map = memory.mmap(10)
      expect([map.length, map.bytes.length]).toEqual([10, 10])
      expect(frames.used).toBe(1)
      expect(copyIn(map.vaddr + 4092n, 4)).toEqual([0, 0, 0, 0])
    })

    it('leaves a hole between two mappings', () => {
      const [one, two] = [memory.mmap(PAGE), memory.mmap(PAGE)]
      const lower = one.vaddr < two.vaddr ? one : two
      expect(copyIn(lower.vaddr + 4095n, 2)).toBe('EFAULT')
    })

    it('takes the address it is told', () => {
      expect(memory.mmap(PAGE, { at: 0x40_0000n }).vaddr).toBe(0x40_0000n)
      expect(memory.mmap(PAGE, { at: 0x40_1000n }).vaddr).toBe(0x40_1000n)
      expect(copyIn(0x40_0fffn, 2)).toEqual([0, 0])
    })

    it('goes below what was mapped where it would have gone', () => {
      const top = memory.mmap(PAGE).vaddr
      const size = 2 ** 41
      memory.mmap(size, { at: top - BigInt(size), backing: { space, hpa: 0x100_0000 } })
      expect(memory.mmap(PAGE).vaddr).toBe(top - BigInt(size) - 0x1000n)
    })

    it.each([
      ['EINVAL', 0, undefined],
      ['EINVAL', Number.NaN, undefined],
      ['EINVAL', PAGE, 0x40_0001n],
      ['EINVAL', PAGE, -0x1000n],
      ['EEXIST', 2 * PAGE, 0x3f_f000n],
      ['ENOMEM', PAGE, 0x8000_0000_0000n],
      ['ENOMEM', PAGE, 1n << 63n],
      ['ENOMEM', 65 * PAGE, undefined],
      ['ENOMEM', 2 ** 60, undefined],
    ])('refuses with %s: length %s at %s', (code, length, at) => {
      memory.mmap(PAGE, { at: 0x40_0000n })
      expect(() => memory.mmap(length, { at })).toThrow(refused(code))
      expect([memory.mappedPages, frames.used]).toEqual([1, 1])
    })

    it('does not hand an address out twice, however often it is mapped and unmapped', () => {
      const seen = new Set<bigint>()
      for (let i = 0; i < 100; i++) {
        const map = memory.mmap(PAGE)
        seen.add(map.vaddr)
        memory.munmap(map.vaddr, PAGE)
      }
      expect([seen.size, frames.used]).toEqual([100, 0])
    })
  })

  describe('copies', () => {
    it.each([
      ['null', 0, 1],
      ['just below', 0x3f_ffff, 1],
      ['just above', 0x40_2000, 1],
      ['running off the end', 0x40_1fff, 2],
      ['running in from below', 0x3f_ffff, 2],
      ['beyond user space', 0xffff_ffff_ffff_f000, 8],
      ['not a number', Number.NaN, 8],
      ['negative', -4, 8],
    ])('fault %s', (_, addr, length) => {
      memory.mmap(2 * PAGE, { at: 0x40_0000n })
      expect(memory.copyIn(addr, new Uint8Array(length))).toBe(false)
      expect(memory.copyOut(addr, new Uint8Array(length))).toBe(false)
    })

    it('of no bytes never fault', () => {
      expect(memory.copyIn(0, new Uint8Array(0))).toBe(true)
      expect(memory.copyOut(0, new Uint8Array(8), 0)).toBe(true)
    })

    it('cross into the neighbouring mapping, whatever lies behind it', () => {
      memory.mmap(PAGE, { at: 0x40_0000n }).bytes.fill(1)
      memory.mmap(PAGE, { at: 0x40_1000n, backing: { bytes: new Uint8Array(PAGE).fill(2) } })
      expect(copyIn(0x40_0ffen, 4)).toEqual([1, 1, 2, 2])
      const page = new Uint8Array(3 * PAGE)
      expect(memory.copyIn(0x40_0000, page, 2 * PAGE)).toBe(true)
      expect([page[PAGE - 1], page[PAGE], page[2 * PAGE]]).toEqual([1, 2, 0])
    })

    it('obey protection', () => {
      memory.mmap(PAGE, { at: 0x40_0000n, prot: PROT_READ })
      memory.mmap(PAGE, { at: 0x50_0000n, prot: PROT_WRITE })
      memory.mmap(PAGE, { at: 0x60_0000n, prot: PROT_NONE })
      const can = (addr: number) => [
        memory.copyIn(addr, new Uint8Array(1)),
        memory.copyOut(addr, new Uint8Array(1)),
      ]
      expect(can(0x40_0000)).toEqual([true, false])
      expect(can(0x50_0000)).toEqual([false, true])
      expect(can(0x60_0000)).toEqual([false, false])
    })

    it('reach device registers as bus accesses', () => {
      memory.mmap(PAGE, { at: 0x40_0000n, backing: { space, hpa: 0x100_1000 } })
      expect(copyIn(0x40_0004n, 4)).toEqual([0x44, 0x33, 0x22, 0x11])
      memory.copyOut(0x40_0008, Uint8Array.of(1, 0, 0, 0))
      expect(registers).toEqual([`r4 ${0x1004}`, `w4 ${0x1008} 1`])
    })
  })

  describe('string', () => {
    const put = (text: string, at = 0) => {
      const map = memory.mmap(PAGE)
      map.bytes.set(new TextEncoder().encode(text), at)
      return Number(map.vaddr) + at
    }

    it.each(['', '0000:01:00.0', 'grüße'])('reads %o up to its terminator', text => {
      expect(memory.string(put(`${text}\0tail`), 64)).toBe(text)
    })

    it('counts the terminator against the limit', () => {
      expect(memory.string(put('abc\0'), 4)).toBe('abc')
      expect(memory.string(put('abc\0'), 3)).toBe('long')
    })

    it('faults when it runs out of memory before a terminator', () => {
      expect(memory.string(put('abc', PAGE - 3), 64)).toBe('fault')
      expect(memory.string(put('ab\0', PAGE - 3), 64)).toBe('ab')
      expect(memory.string(0, 64)).toBe('fault')
    })
  })

  describe('munmap and mprotect', () => {
    it('takes pages out of the middle and gives their frames back', () => {
      const map = memory.mmap(5 * PAGE, { at: 0x40_0000n })
      map.bytes.fill(3)
      memory.munmap(0x40_1000n, 2 * PAGE)
      expect([memory.mappedPages, frames.used]).toEqual([3, 3])
      expect(copyIn(0x40_0fffn, 1)).toEqual([3])
      expect(copyIn(0x40_1000n, 1)).toBe('EFAULT')
      expect(copyIn(0x40_2fffn, 1)).toBe('EFAULT')
      expect(copyIn(0x40_3000n, 1)).toEqual([3])
    })

    it('skips holes and unmaps across mappings', () => {
      memory.mmap(2 * PAGE, { at: 0x40_0000n })
      memory.mmap(2 * PAGE, { at: 0x40_3000n })
      memory.munmap(0x40_1000n, 3 * PAGE)
      expect(memory.mappedPages).toBe(2)
      memory.munmap(0x10_0000n, 0x100_0000)
      expect([memory.mappedPages, frames.used]).toEqual([0, 0])
    })

    it.each([
      [0x40_0800n, PAGE],
      [0x40_0000n, 0],
      [0x40_0000n, Number.NaN],
    ])('munmap refuses %s, %s bytes with EINVAL', (vaddr, length) => {
      memory.mmap(PAGE, { at: 0x40_0000n })
      expect(() => memory.munmap(vaddr, length)).toThrow(refused('EINVAL'))
      expect(memory.mappedPages).toBe(1)
    })

    it('protects exactly the pages it is told', () => {
      const map = memory.mmap(3 * PAGE, { at: 0x40_0000n })
      memory.mprotect(0x40_1000n, PAGE, PROT_READ)
      const writable = (addr: number) => memory.copyOut(addr, new Uint8Array(1))
      expect([0x40_0fff, 0x40_1000, 0x40_1fff, 0x40_2000].map(writable)).toEqual([
        true,
        false,
        false,
        true,
      ])
      map.bytes[PAGE] = 7
      expect(copyIn(0x40_1000n, 1)).toEqual([7])
      memory.mprotect(0x40_0000n, 3 * PAGE, PROT_READ | PROT_WRITE)
      expect(writable(0x40_1000)).toBe(true)
      expect(frames.used).toBe(3)
    })

    it('mprotect over a hole is ENOMEM and changes nothing', () => {
      memory.mmap(PAGE, { at: 0x40_0000n })
      memory.mmap(PAGE, { at: 0x40_2000n })
      expect(() => memory.mprotect(0x40_0000n, 3 * PAGE, PROT_NONE)).toThrow(refused('ENOMEM'))
      expect(copyIn(0x40_0000n, 1)).toEqual([0])
      memory.mprotect(0x40_0000n, 0, PROT_NONE)
      expect(copyIn(0x40_0000n, 1)).toEqual([0])
    })

    it('tells listeners before a range changes, and only then', () => {
      const seen: unknown[] = []
      memory.mmap(2 * PAGE, { at: 0x40_0000n })
      const end = memory.onInvalidate((page, pages) => {
        seen.push([page, pages, copyIn(0x40_0000n, 1) !== 'EFAULT'])
      })
      memory.munmap(0x90_0000n, PAGE)
      memory.mprotect(0x40_1000n, PAGE, PROT_READ)
      memory.munmap(0x40_0000n, 2 * PAGE)
      end()
      memory.mmap(PAGE, { at: 0x40_0000n })
      memory.munmap(0x40_0000n, PAGE)
      expect(seen).toEqual([
        [0x401, 1, true],
        [0x400, 2, true],
      ])
    })

    it('keeps the owner of a mapping until its last part is gone', () => {
      let references = 0
      const owner = { get: () => references++, put: () => references-- }
      memory.mmap(4 * PAGE, { at: 0x40_0000n, owner, backing: { space, hpa: 0x100_0000 } })
      memory.munmap(0x40_1000n, PAGE)
      memory.mprotect(0x40_2000n, PAGE, PROT_READ)
      expect(references).toBeGreaterThan(0)
      memory.munmap(0x40_0000n, 4 * PAGE)
      expect(references).toBe(0)
    })
  })

  describe('device windows and plain bytes', () => {
    it('leads to the device, page by page', () => {
      const map = memory.mmap(2 * PAGE, { at: 0x40_0000n, backing: { space, hpa: 0x100_0000 } })
      expect(memory.deviceAt(0x40_1004n)).toEqual({ space, hpa: 0x100_1004, length: 0xffc })
      expect(memory.deviceAt(0x40_2000n)).toBeUndefined()
      expect(memory.bytesAt(0x40_0000n, 4)).toBeUndefined()
      expect(map.load(0x1008, 4)).toBe(0x11223344n)
      map.store(0x10, 8, 0xabcn)
      expect(registers).toEqual([`r4 ${0x1008}`, 'w8 16 abc'])
      expect(() => map.bytes).toThrow(/use load and store/)
      expect(() => map.load(0x1ffd, 4)).toThrow(RangeError)
      memory.munmap(0x40_0000n, PAGE)
      expect(memory.deviceAt(0x40_1004n)?.hpa).toBe(0x100_1004)
    })

    it('loads and stores plain memory in little-endian', () => {
      const map = memory.mmap(PAGE)
      map.store(1, 4, 0x0403_0201n)
      expect([...map.bytes.subarray(0, 6)]).toEqual([0, 1, 2, 3, 4, 0])
      expect(map.load(1, 4)).toBe(0x0403_0201n)
    })

    it('gives the bytes of one mapping, and no more', () => {
      const map = memory.mmap(2 * PAGE, { at: 0x40_0000n })
      memory.mmap(PAGE, { at: 0x40_2000n })
      expect(memory.bytesAt(0x40_0ff0n, 0x20)?.byteOffset).toBe(map.bytes.byteOffset + 0xff0)
      expect(memory.bytesAt(0x40_1ff0n, 0x11)).toBeUndefined()
      expect(memory.bytesAt(0x50_0000n, 1)).toBeUndefined()
    })

    it('has no physical address for kernel bytes or holes', () => {
      const map = memory.mmap(PAGE, { backing: { bytes: new Uint8Array(PAGE) } })
      expect([memory.hpaAt(map.vaddr), memory.hpaAt(0x1000)]).toEqual([-1, -1])
      expect(() => memory.mmap(2 * PAGE, { backing: { bytes: new Uint8Array(PAGE) } })).toThrow(
        /shows only/,
      )
    })
  })

  describe('fork', () => {
    it('copies private memory and shares what is shared, at the same addresses', () => {
      const own = memory.mmap(PAGE, { at: 0x40_0000n })
      const shared = memory.mmap(PAGE, { at: 0x50_0000n, shared: true })
      const kernel = new Uint8Array(PAGE)
      memory.mmap(PAGE, { at: 0x60_0000n, backing: { bytes: kernel } })
      memory.mmap(PAGE, { at: 0x70_0000n, backing: { space, hpa: 0x100_0000 } })
      memory.mprotect(0x40_0000n, PAGE, PROT_READ)
      own.bytes[0] = 1
      shared.bytes[0] = 1
      const child = memory.fork()
      own.bytes[0] = 2
      shared.bytes[0] = 2
      kernel[0] = 2
      const at = (addr: number) => {
        const into = new Uint8Array(1)
        child.copyIn(addr, into)
        return into[0]
      }
      expect([at(0x40_0000), at(0x50_0000), at(0x60_0000)]).toEqual([1, 2, 2])
      expect(child.deviceAt(0x70_0000)?.hpa).toBe(0x100_0000)
      expect(child.copyOut(0x40_0000, Uint8Array.of(9))).toBe(false)
      expect(frames.used).toBe(3)
      memory.release()
      expect(at(0x50_0000)).toBe(2)
      child.release()
      expect(frames.used).toBe(0)
    })

    it('starts with nothing locked or pinned, and the same limit', () => {
      memory.memlockLimitPages = 5
      const map = memory.mmap(PAGE)
      memory.pin(Number(map.vaddr) / PAGE, true)
      memory.lock(1)
      const child = memory.fork()
      expect([child.lockedPages, child.pinnedPages, child.memlockLimitPages]).toEqual([0, 0, 5])
      expect(frames.references(memory.hpaAt(map.vaddr))).toBe(2)
      expect(frames.references(child.hpaAt(map.vaddr))).toBe(1)
    })

    it('undoes a copy that does not fit: ENOMEM', () => {
      memory.mmap(20 * PAGE)
      memory.mmap(15 * PAGE)
      expect(() => memory.fork()).toThrow(refused('ENOMEM'))
      expect(frames.used).toBe(35)
    })
  })

  it('maps nothing once it is released', () => {
    memory.mmap(PAGE)
    memory.release()
    expect([memory.mappedPages, frames.used]).toEqual([0, 0])
    expect(() => memory.mmap(PAGE)).toThrow(refused('ESRCH'))
  })

  it('agrees with a page map over drawn steps and leaks no frame (seed 5)', () => {
    let seed = 5
    const draw = (n: number) => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 8) % n
    const model = new Map<number, number>()
    const pins: number[] = []
    const base = 0x400
    for (let step = 0; step < 3000; step++) {
      const first = draw(40)
      const pages = 1 + draw(6)
      const range = Array.from({ length: pages }, (_, i) => first + i)
      const vaddr = BigInt((base + first) * PAGE)
      const prot = draw(4)
      switch (draw(4)) {
        case 0:
          try {
            memory.mmap(pages * PAGE, { at: vaddr, prot })
            for (const p of range) {
              expect(model.has(p)).toBe(false)
              model.set(p, prot)
            }
          } catch (error) {
            if (range.some(p => model.has(p))) expect(error).toMatchObject({ code: 'EEXIST' })
            else expect(error).toMatchObject({ code: 'ENOMEM' })
          }
          break
        case 1:
          memory.munmap(vaddr, pages * PAGE)
          for (const p of range) model.delete(p)
          break
        case 2:
          if (range.every(p => model.has(p))) {
            memory.mprotect(vaddr, pages * PAGE, prot)
            for (const p of range) model.set(p, prot)
          } else {
            expect(() => memory.mprotect(vaddr, pages * PAGE, prot)).toThrow(refused('ENOMEM'))
          }
          break
        default: {
          const frame = memory.pin(base + first, true)
          expect(frame >= 0).toBe(((model.get(first) ?? 0) & PROT_WRITE) !== 0)
          if (frame >= 0) pins.push(frame)
          if (pins.length > 10) memory.unpin(pins.shift()!)
        }
      }
      expect(memory.copyIn((base + first) * PAGE, new Uint8Array(pages * PAGE))).toBe(
        range.every(p => ((model.get(p) ?? 0) & PROT_READ) !== 0),
      )
      expect(memory.mappedPages).toBe(model.size)
    }
    memory.release()
    expect(frames.used).toBe(new Set(pins).size)
    for (const frame of pins) memory.unpin(frame)
    expect([frames.used, frames.pins, memory.pinnedPages]).toEqual([0, 0, 0])
  })
})
