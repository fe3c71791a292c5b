// The C-bit in table walks, in fetches, in control registers and in CPUID (C-24, C-25, C.4 rows 17 and 18), and random
// accesses of a processor, a second mapping and the host against a plain model of encrypted memory (C-23).
import { describe, expect, it } from 'vitest'
import { VirtualClock } from '../../../src/base/clock.js'
import { TraceBus } from '../../../src/base/trace.js'
import { nodeCrypto } from '../../../src/cli/node-crypto.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { encryptionOf, guestBits, isPrivateAccess } from '../../../src/cpu/sev/encryption.js'
import { MemoryKey } from '../../../src/cpu/sev/memory-key.js'
import { createSevPlatform } from '../../../src/cpu/sev/platform.js'
import { PrivateMemory } from '../../../src/cpu/sev/private-memory.js'
import { Mmu } from '../../../src/cpu/x86/mmu.js'
import { ACCESS } from '../../../src/cpu/x86/ports.js'
import { X86State } from '../../../src/cpu/x86/registers.js'
import { AddressSpace } from '../../../src/mem/address-space.js'
import { createRam } from '../../../src/mem/ram.js'
import { x86Format } from '../../../src/paging/formats-x86.js'
import { Walk } from '../../../src/paging/walk.js'
import { createWalker } from '../../../src/paging/walker.js'
import { xorshift } from '../../support/random.js'
import { AT, SevGuest } from './guest.js'

/** mov %eax,…; as the guests of these tests need it. */
const READ = (at: number) => `8b 04 25 ${le(at)} e7 10` // mov at,%eax; out %eax,$0x10
const le = (v: number) =>
  [0, 8, 16, 24].map(s => ((v >>> s) & 255).toString(16).padStart(2, '0')).join(' ')

describe('C-24 what is private', () => {
  // biome-ignore format: table
  it.each([
    ['fetch', true,  false, true],  ['fetch', true,  true, true],  ['fetch', false, false, true],
    ['table', true,  false, true],  ['table', true,  true, true],  ['table', false, false, true],
    ['data',  true,  false, false], ['data',  true,  true, true],
    ['data',  false, false, true],  ['data',  false, true, true],
  ] as const)('%s with paging %s and leaf C-bit %s: %s', (kind, paging, leaf, is) => {
    expect(isPrivateAccess(kind, paging, leaf)).toBe(is)
  })

  it('code is fetched through the key even where its leaf has no C-bit', () => {
    const g = new SevGuest()
    g.code(READ(AT.DATA))
    g.encryptTables(AT.CODE)
    g.launch()
    expect(g.answer()).toBe(0)
  })

  it('code that was never encrypted is not what its bytes say', () => {
    const g = new SevGuest()
    g.code(READ(AT.DATA))
    g.encryptTables()
    g.must(g.command(uapi.KVM_SEV_LAUNCH_START, uapi.kvm_sev_launch_start()))
    g.update(0, AT.CODE)
    g.measure()
    g.must(g.command(uapi.KVM_SEV_LAUNCH_FINISH))
    let answered = false
    try {
      answered = g.answer() === 0 && g.regs().rip === BigInt(AT.CODE + 9)
    } catch {
      answered = false
    }
    expect(answered).toBe(false)
  })

  it('tables are read through the key: in clear they lead nowhere', () => {
    const g = new SevGuest()
    g.code(READ(AT.DATA))
    g.encryptTables()
    g.must(g.command(uapi.KVM_SEV_LAUNCH_START, uapi.kvm_sev_launch_start()))
    g.update(AT.CODE, 4096)
    g.measure()
    g.must(g.command(uapi.KVM_SEV_LAUNCH_FINISH))
    expect(g.enter()).toBe(uapi.KVM_EXIT_SHUTDOWN)
  })

  it('accessed and dirty flags are set in the encrypted tables', () => {
    const g = new SevGuest()
    g.code(`c7 04 25 ${le(AT.DATA)} 01 00 00 00 e6 20`)
    g.encryptTables()
    g.launch()
    g.enter()
    const entry = new DataView(g.peek(AT.PT + 8 * (AT.DATA >> 12), 8).buffer).getBigUint64(0, true)
    expect(entry & 0x60n).toBe(0x60n)
  })

  it('the leaf decides for a 2 MiB page as for a 4 KiB one', () => {
    const g = new SevGuest({}, { ramBytes: 0x40_0000 })
    // movl $5,0x200000; mov 0x200000,%eax; out; movl $6,0x400000 - 16; mov; out
    g.code(
      `c7 04 25 ${le(0x20_0000)} 05 00 00 00 ${READ(0x20_0000)} c7 04 25 ${le(0x3f_fff0)} 06 00 00 00 ${READ(0x3f_fff0)}`,
    )
    g.encryptTables()
    g.view.setBigUint64(AT.PD + 8, 0x20_0083n | (1n << 47n), true)
    g.launch()
    expect(g.answer()).toBe(5)
    expect(g.view.getUint32(0x20_0000, true)).not.toBe(5)
    const clear = new SevGuest({}, { ramBytes: 0x40_0000 })
    clear.code(`c7 04 25 ${le(0x20_0000)} 05 00 00 00 ${READ(0x20_0000)}`)
    clear.encryptTables()
    clear.launch()
    expect(clear.answer()).toBe(5)
    expect(clear.view.getUint32(0x20_0000, true)).toBe(5)
  })

  it('an access that crosses from a private to a shared page does each part its way', () => {
    const g = new SevGuest()
    const shared = AT.DATA + 0x1000
    g.code(`c7 04 25 ${le(shared - 2)} 44 33 22 11 ${READ(shared - 2)}`)
    g.encryptTables(shared)
    g.launch()
    expect(g.answer()).toBe(0x11223344)
    expect([...g.ram.subarray(shared, shared + 2)]).toEqual([0x22, 0x11])
    expect([...g.peek(shared - 2, 2)]).toEqual([0x44, 0x33])
  })

  it('a write to a private page of a read-only slot leaves the guest', () => {
    const g = new SevGuest()
    const rom = g.sys.mmap(4096)
    const at = 0x50_0000
    g.slot({
      slot: 1,
      guest_phys_addr: BigInt(at),
      memory_size: 4096n,
      userspace_addr: rom.vaddr,
      flags: uapi.KVM_MEM_READONLY,
    })
    g.code(`c7 04 25 ${le(at)} 05 00 00 00`)
    g.encryptTables()
    g.view.setBigUint64(AT.PD + 16, 0x40_0083n | (1n << 47n), true)
    g.launch()
    expect(g.enter()).toBe(uapi.KVM_EXIT_MMIO)
    expect(g.run.u.mmio.phys_addr).toBe(BigInt(at))
    expect(rom.bytes.every(b => b === 0)).toBe(true)
  })
})

describe('C.4 row 18: host-side walks mask the C-bit out of every entry and of CR3', () => {
  it('KVM_TRANSLATE of an encrypted guest whose entries and CR3 have the C-bit', () => {
    const g = new SevGuest()
    const c = 1n << 47n
    for (const at of [AT.PML4, AT.PDPT, AT.PD])
      g.view.setBigUint64(at, g.view.getBigUint64(at, true) | c, true)
    g.encryptTables()
    g.launch()
    g.setSregs(s => {
      s.cr3 = BigInt(AT.PML4) | c
    })
    const translate = (linear_address: bigint) => {
      const t = uapi.kvm_translation({ linear_address })
      g.sys.ioctl(g.vcpu, uapi.KVM_TRANSLATE, t)
      return t
    }
    expect(translate(0x2_0123n)).toMatchObject({ physical_address: 0x2_0123n, valid: 1 })
    g.ram.fill(0, AT.PT, AT.PT + 4096)
    expect(translate(0x2_0123n).physical_address).not.toBe(0x2_0123n)
  })

  const format = x86Format({ physicalBits: 47, encryptionBit: 47 })
  it.each([
    ['without', 0n, 0x1234_5678],
    ['with', 1n << 47n, 0x1234_5678],
  ])('a walker of the format, entries %s the C-bit', (_, c, output) => {
    const memory = new AddressSpace()
    memory.addRam(0, new Uint8Array(0x5000))
    const put = (at: number, v: bigint) => memory.store(at, 8, v | c | 3n)
    put(0x1000, 0x2000n)
    put(0x2000, 0x3000n)
    put(0x3000 + 8 * 0x91, 0x4000n)
    put(0x4000 + 8 * 0x145, 0x1234_5000n)
    const w = new Walk()
    expect(createWalker(format, memory)(0x1000, 0, 0x1234_5678 | 0, 1, w)).toBe(true)
    expect(w.output).toBe(output)
  })
})

describe('C-25 the guest physical width shrinks', () => {
  it.each([
    [47, 5, 47],
    [51, 1, 51],
    [51, 5, 47],
  ])('C-bit %i, reduction %i: %i bits', (cBit, reduction, bits) => {
    expect(guestBits({ cBit, reduction }, 52)).toBe(bits)
  })

  it.each([
    [47, 4],
    [31, 21],
    [52, 5],
    [47, 20],
  ])('C-bit %i with reduction %i is refused', (cBit, reduction) => {
    const clock = new VirtualClock()
    const host = { memory: new AddressSpace(), clock, trace: new TraceBus(clock), addressBits: 52 }
    expect(() => createSevPlatform({ cBit, reduction }, host)).toThrow(RangeError)
  })

  // biome-ignore format: table
  it.each([
    ['the C-bit itself',          47, 5, 1n << 47n, 'reads'],
    ['the bit above the C-bit',   47, 5, 1n << 48n, 'faults'],
    ['the top bit of an address', 47, 5, 1n << 51n, 'faults'],
    ['C-bit 51 itself',           51, 1, 1n << 51n, 'reads'],
    ['a bit below C-bit 51 given up', 51, 5, 1n << 47n, 'faults'],
  ] as const)('%s in a leaf: the guest %s', (_, cBit, reduction, bit, what) => {
    const g = new SevGuest({ cBit, reduction })
    g.code(READ(AT.DATA))
    g.encryptTables()
    g.map(AT.DATA, BigInt(AT.DATA) | 3n | (1n << BigInt(cBit)) | bit)
    g.launch()
    if (what === 'reads') expect(g.answer()).toBe(0)
    else expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
    if (what === 'faults') {
      const error = new DataView(g.peek(Number(g.regs().rsp), 4).buffer).getUint32(0, true)
      expect([g.run.u.io.port, error]).toEqual([0x8e, 9]) // page fault: present, reserved bit
    }
  })

  it.each([
    ['the C-bit', 1n << 47n, true],
    ['bit 48', 1n << 48n, false],
  ])('%s in a CR3 that the guest loads: taken %s', (_, bit, taken) => {
    const g = new SevGuest()
    // mov %rbx,%cr3; mov %cr3,%rax; shr $47,%rax; out %eax,$0x10
    g.code('0f 22 db 0f 20 d8 48 c1 e8 2f e7 10')
    g.encryptTables()
    g.setRegs({ rbx: BigInt(AT.PML4) | bit })
    g.launch()
    if (taken) expect(g.answer()).toBe(1)
    else {
      g.enter()
      expect(g.run.u.io.port).toBe(0x8d) // #GP
    }
  })

  it.each([
    [{}, 0b0010, 47 | (5 << 6), 15, 1],
    [{ cBit: 51, reduction: 1, asids: 99, minPlainAsid: 10 }, 0b1010, 51 | (1 << 6), 99, 10],
    [{ snp: true }, 0b10010, 47 | (5 << 6), 15, 1],
  ])('C.4 row 17: CPUID 8000_001F with %o', (options, eax, ebx, ecx, edx) => {
    const g = new SevGuest(options)
    const cpuid = uapi.kvm_cpuid2({ nent: 80 }, 80 * 40)
    g.sys.ioctl(g.sys.open('/dev/kvm'), uapi.KVM_GET_SUPPORTED_CPUID, cpuid)
    const leaves = [...cpuid.entries].slice(0, cpuid.nent)
    const leaf = leaves.find(l => l.function === 0x8000_001f)!
    expect([leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]).toEqual([eax, ebx, ecx, edx])
    expect(leaves.find(l => l.function === 0x8000_0000)!.eax).toBe(0x8000_001f)
  })

  it('SEV_STATUS tells the guest, and is not for it to write', () => {
    const g = new SevGuest()
    // mov $0xc0010131,%ecx; rdmsr; out %eax,$0x10; wrmsr
    g.code('b9 31 01 01 c0 0f 32 e7 10 0f 30')
    g.encryptTables()
    g.launch()
    expect(g.answer()).toBe(1)
    g.enter()
    expect(g.run.u.io.port).toBe(0x8d)
  })
})

describe('C-23 random accesses against a plain model', () => {
  const PAGES = 6
  const HOST = 0x4_0000
  const [PRIVATE, SHARED] = [0x10_0000, 0x20_0000]

  /** Ciphertext only, every access by itself. */
  class Model {
    readonly bytes: Uint8Array
    readonly #key: MemoryKey
    constructor(bytes: Uint8Array, key: MemoryKey) {
      this.bytes = bytes.slice()
      this.#key = key
    }
    get(at: number, isPrivate: boolean): number {
      if (!isPrivate) return this.bytes[at]!
      const block = this.bytes.slice(at & ~15, (at & ~15) + 16)
      this.#key.decrypt(block, HOST + (at & ~15))
      return block[at & 15]!
    }
    set(at: number, isPrivate: boolean, value: number): void {
      if (!isPrivate) {
        this.bytes[at] = value
        return
      }
      const start = at & ~15
      const block = this.bytes.slice(start, start + 16)
      this.#key.decrypt(block, HOST + start)
      block[at & 15] = value
      this.#key.encrypt(block, HOST + start)
      this.bytes.set(block, start)
    }
  }

  function machine() {
    const memory = new AddressSpace()
    const tables = createRam(0x1_0000)
    memory.addRam(0, tables)
    const data = createRam(PAGES * 4096)
    const ram = memory.addRam(0x8_0000, data)
    const key = new MemoryKey(
      nodeCrypto,
      Uint8Array.from({ length: 32 }, (_, i) => i),
    )
    const state = new X86State()
    state.reset()
    Object.assign(state, { cr0: 0x8001_0031, cr3: 0x1000n, cr4: 0x20, efer: 0x500 })
    const none = () => 0n
    const mmu = new Mmu(state, {
      memory,
      apicPage: () => -1,
      apicRead: none,
      apicWrite() {},
      readOnly: () => false,
      populate: () => false,
      leaving: () => false,
    } as ConstructorParameters<typeof Mmu>[1])
    const view = new DataView(tables.buffer)
    const c = 1n << 47n
    const put = (at: number, v: bigint) => view.setBigUint64(at, v | 3n, true)
    put(0x1000, 0x2000n | c)
    put(0x2000, 0x3000n | c)
    put(0x3000, 0x4000n | c)
    put(0x3008, 0x5000n | c)
    for (let i = 0; i < PAGES; i++) {
      put(0x4000 + 8 * ((PRIVATE >> 12) + i), BigInt(0x8_0000 + i * 4096) | c)
      put(0x5000 + 8 * (((SHARED - 0x20_0000) >> 12) + i), BigInt(0x8_0000 + i * 4096))
    }
    key.encrypt(tables, 0)
    const changes: [number, boolean][] = []
    const priv = new PrivateMemory({
      memory,
      key,
      hostAddress: (r, offset) => (r === ram ? HOST + offset : r.base + offset),
      became: (address, encrypted) => void changes.push([address, encrypted]),
    })
    priv.onSettle = () => mmu.plaintextGone()
    priv.onActivate = page => mmu.plaintextMade(page)
    mmu.encrypt(encryptionOf(priv, { cBit: 47, reduction: 5 }, 52))
    return { mmu, priv, data, model: new Model(data, key), state }
  }

  const rounds = process.env['VFIO_EMU_LONG'] ? 40_000 : 2000
  it.each([1, 2])(`${rounds} loads and stores, by both mappings and by the host, seed %i`, seed => {
    const random = xorshift(seed)
    const { mmu, priv, data, model, state } = machine()
    const bytes = new Uint8Array(8)
    const pair = new Int32Array(2)
    for (let n = 0; n < rounds; n++) {
      const size = [1, 2, 4, 8][random(4)]!
      const at = random(PAGES * 4096 - 8)
      const isPrivate = random(2) === 0
      const linear = (isPrivate ? PRIVATE : SHARED) + at
      const what = random(12)
      if (what < 5) {
        if (size === 8) mmu.load64(0, linear, ACCESS.READ, pair, 0)
        else pair[0] = mmu.load(0, linear, size, ACCESS.READ)
        const got = new Uint8Array(pair.buffer, 0, size)
        for (let i = 0; i < size; i++)
          expect(got[i], `${n}: ${linear + i}`).toBe(model.get(at + i, isPrivate))
      } else if (what < 10) {
        const [low, high] = [random(2 ** 32) | 0, random(2 ** 32) | 0]
        if (size === 8) mmu.store64(0, linear, high, low, ACCESS.WRITE)
        else mmu.store(0, linear, size, low, ACCESS.WRITE)
        const v = new DataView(bytes.buffer)
        v.setInt32(0, low, true)
        v.setInt32(4, high, true)
        for (let i = 0; i < size; i++) model.set(at + i, isPrivate, bytes[i]!)
      } else {
        priv.settle()
        if (what === 10) expect(data[at], `${n}: host ${at}`).toBe(model.bytes[at])
        else data[at] = model.bytes[at] = random(256)
      }
      expect(state.abort).toBe(0)
    }
    priv.settle()
    expect(data).toEqual(model.bytes)
    expect(priv.activePages).toBe(0)
  })
})
