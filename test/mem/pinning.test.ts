import { beforeEach, describe, expect, it } from 'vitest'
import { AddressSpace } from '../../src/mem/address-space.js'
import { FrameAllocator } from '../../src/mem/frames.js'
import { ProcessMemory } from '../../src/mem/process-memory.js'
import { PROT_READ, PROT_WRITE } from '../../src/mem/vma.js'

const PAGE = 4096
const at = (page: number) => BigInt(page * PAGE)

describe('pinning', () => {
  let space: AddressSpace
  let frames: FrameAllocator
  let memory: ProcessMemory
  let privileged: boolean

  beforeEach(() => {
    privileged = false
    space = new AddressSpace()
    frames = new FrameAllocator(space, space.addRam(0, new Uint8Array(32 * PAGE)))
    memory = new ProcessMemory(frames, { memlockLimitPages: 4, capIpcLock: () => privileged })
  })

  it('pins the frame behind a page, for the access that its protection allows', () => {
    memory.mmap(PAGE, { at: at(0x100) })
    memory.mmap(PAGE, { at: at(0x200), prot: PROT_READ })
    memory.mmap(PAGE, { at: at(0x300), prot: PROT_WRITE })
    expect(memory.pin(0x100, true)).toBe(memory.hpaAt(at(0x100)) / PAGE)
    expect([memory.pin(0x200, false) >= 0, memory.pin(0x200, true)]).toEqual([true, -1])
    expect([memory.pin(0x300, true) >= 0, memory.pin(0x300, false)]).toEqual([true, -1])
    expect([memory.pin(0x400, false), memory.pin(-1, false), memory.pin(2 ** 53, false)]).toEqual([
      -1, -1, -1,
    ])
    expect([memory.pinnedPages, frames.pins]).toEqual([3, 3])
  })

  it('cannot pin a device window or kernel bytes', () => {
    memory.mmap(PAGE, { at: at(0x100), backing: { space, hpa: 0x100_0000 } })
    memory.mmap(PAGE, { at: at(0x200), backing: { bytes: new Uint8Array(PAGE) } })
    expect([memory.pin(0x100, true), memory.pin(0x200, true)]).toEqual([-1, -1])
    expect(memory.pinRun(0x200, 1, true).pages).toBe(0)
  })

  it('pins a run as far as the mapping goes, protection by protection', () => {
    const map = memory.mmap(6 * PAGE, { at: at(0x100) })
    memory.mprotect(at(0x104), PAGE, PROT_READ)
    const frame = memory.hpaAt(map.vaddr) / PAGE
    expect(memory.pinRun(0x101, 100, true)).toEqual({
      hpaPage: frame + 1,
      pages: 3,
      reserved: false,
    })
    expect(memory.pinRun(0x104, 100, true).pages).toBe(0)
    expect(memory.pinRun(0x104, 100, false)).toMatchObject({ hpaPage: frame + 4, pages: 1 })
    expect(memory.pinRun(0x100, 2, true)).toMatchObject({ hpaPage: frame, pages: 2 })
    expect(memory.pinnedPages).toBe(6)
  })

  it('finds the run of a device window without pinning it', () => {
    memory.mmap(4 * PAGE, { at: at(0x100), backing: { space, hpa: 0x100_0000 } })
    expect(memory.pinRun(0x102, 8, true)).toEqual({ hpaPage: 0x1002, pages: 2, reserved: true })
    expect(frames.pins).toBe(0)
  })

  it('keeps pinned frames alive through munmap, with their contents, until they are unpinned', () => {
    const map = memory.mmap(2 * PAGE, { at: at(0x100) })
    map.bytes.fill(0x77)
    const frame = memory.pin(0x101, true)
    memory.munmap(map.vaddr, 2 * PAGE)
    expect(frames.used).toBe(1)
    memory.mmap(20 * PAGE)
    expect(frames.bytes(frame * PAGE).every(b => b === 0x77)).toBe(true)
    memory.unpin(frame)
    expect(frames.used).toBe(20)
  })

  it('gives everything back at exit but what is pinned, and that when it is unpinned', () => {
    memory.mmap(8 * PAGE, { at: at(0x100) })
    const { hpaPage, pages } = memory.pinRun(0x102, 3, true)
    memory.release()
    expect([frames.used, memory.pinnedPages]).toEqual([3, 3])
    memory.unpin(hpaPage, pages)
    expect([frames.used, memory.pinnedPages, frames.pins]).toEqual([0, 0, 0])
  })

  it('counts each pin of the same page', () => {
    memory.mmap(PAGE, { at: at(0x100) })
    const frame = memory.pin(0x100, true)
    expect(memory.pin(0x100, false)).toBe(frame)
    memory.unpin(frame)
    memory.release()
    expect(frames.used).toBe(1)
    memory.unpin(frame)
    expect(frames.used).toBe(0)
  })

  describe('the locked-memory account', () => {
    it('reaches the limit and not one page more', () => {
      expect(memory.lock(3)).toBe(true)
      expect([memory.mayLock(1), memory.mayLock(2)]).toEqual([true, false])
      expect(memory.lock(2)).toBe(false)
      expect(memory.lockedPages).toBe(3)
      expect(memory.lock(1)).toBe(true)
      memory.unlock(4)
      expect(memory.lockedPages).toBe(0)
    })

    it('counts, but does not limit, who has CAP_IPC_LOCK, asked at the time', () => {
      privileged = true
      expect(memory.lock(100)).toBe(true)
      expect(memory.lockedPages).toBe(100)
      privileged = false
      expect(memory.lock(1)).toBe(false)
      // CAP_IPC_LOCK as it was when a mapping was made.
      expect(memory.lock(1, true)).toBe(true)
      expect(memory.lockedPages).toBe(101)
    })

    it('knows no limit when it is infinite', () => {
      memory.memlockLimitPages = Number.POSITIVE_INFINITY
      expect(memory.lock(2 ** 40)).toBe(true)
    })

    it('calls unlocking more than is locked our own mistake', () => {
      memory.lock(2)
      expect(() => memory.unlock(3)).toThrow(/3 pages unlocked of 2/)
    })
  })
})
