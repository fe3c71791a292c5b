// Distributor, redistributor and CPU interface at register level (IHI 0069H). Names cite its chapters.
import { describe, expect, it } from 'vitest'
import { Gic } from '../../../src/cpu/gic/gic.js'
import { AddressSpace } from '../../../src/mem/address-space.js'
import { xorshift } from '../../support/random.js'
import { gicWorld, SGI } from './world.js'

describe('what a GIC says of itself', () => {
  it.each([
    ['GICD_TYPER: 96 interrupts, LPIs, 16 id bits, no 1-of-N', 'dist', 0x4, 0x027a_0002],
    ['GICD_CTLR: one Security state, affinity routing', 'dist', 0x0, 0x53],
    ['GICD_IIDR: KVM by Arm', 'dist', 0x8, 0x4b00_343b],
    ['GICD_PIDR2: architecture 3', 'dist', 0xffe8, 0x3b],
    ['GICR_CTLR: CES and IR', 'redist', 0x0, 0x6],
    ['GICR_TYPER: physical LPIs, not the last', 'redist', 0x8, 0x1],
    ['GICR_PIDR2: architecture 3', 'redist', 0xffe8, 0x3b],
    ['GICR_ICFGR0: SGIs are edges', 'redist', SGI + 0xc00, 0xaaaa_aaaa],
  ] as const)('%s (12.9, 12.11)', (_, where, offset, value) => {
    expect(gicWorld({ processors: 2 })[where](offset)).toBe(value)
  })

  it('GICR_TYPER of the last processor has Last, its number and its affinity', () => {
    const gic = new Gic({ memory: new AddressSpace(), interrupts: 64, its: false })
    for (const affinity of [0, 1, 0x10203]) gic.addProcessor(affinity)
    const typer = gic.processors.map(p => p.redistributor.read(8, 8))
    expect(typer).toEqual([0n, 0x1_0000_0100n, 0x1_0203_0000_0210n])
  })

  it('ICC_CTLR: five priority bits; ICC_SRE: system registers only', () => {
    const w = gicWorld()
    w.setIcc('SRE', 0)
    expect([w.icc('CTLR'), w.icc('SRE')]).toEqual([0x400, 7])
  })

  it.each([96, 64, 1024])(
    '%i interrupts are accepted, with registers for just those',
    interrupts => {
      const w = gicWorld({ interrupts })
      const last = 0x100 + interrupts / 8 - 4
      w.dist(last, -1)
      w.dist(last + 4, -1)
      expect(w.dist(last)).toBe(0xffff_ffff)
      expect(w.dist(last + 4)).toBe(0)
    },
  )

  it.each([0, 32, 65, 1056])('%i interrupts are no GIC', interrupts => {
    expect(() => gicWorld({ interrupts })).toThrow('a GIC with')
  })
})

describe('pending, active, and the end of an interrupt (4.1, 4.7)', () => {
  it('a level-sensitive SPI is pending as long as its line is high, and is taken once until it is deactivated', () => {
    const w = gicWorld()
    w.spi(40, 0x80)
    w.gic.setSpi(40, true)
    expect(w.inputs()).toBe('irq')
    expect([w.icc('HPPIR1'), w.icc('IAR1'), w.icc('RPR')]).toEqual([40, 40, 0x80])
    expect([w.inputs(), w.dist(0x204), w.dist(0x304)]).toEqual(['', 0x100, 0x100])
    expect(w.icc('IAR1')).toBe(1023)
    w.setIcc('EOIR1', 40)
    expect([w.inputs(), w.icc('RPR')]).toEqual(['irq', 0xff])
    w.gic.setSpi(40, false)
    expect([w.inputs(), w.dist(0x204)]).toEqual(['', 0])
  })

  it('an edge is latched, taken once, and is latched anew while the interrupt is active', () => {
    const w = gicWorld()
    w.spi(40, 0x80, { edge: true })
    w.gic.setSpi(40, true)
    w.gic.setSpi(40, false)
    expect(w.icc('IAR1')).toBe(40)
    expect(w.dist(0x204)).toBe(0)
    w.gic.setSpi(40, true)
    expect([w.dist(0x204), w.inputs()]).toEqual([0x100, ''])
    w.setIcc('EOIR1', 40)
    expect(w.icc('IAR1')).toBe(40)
    w.setIcc('EOIR1', 40)
    expect([w.icc('IAR1'), w.inputs()]).toEqual([1023, ''])
  })

  it('ISPENDR latches; ICPENDR clears the latch but not a high line', () => {
    const w = gicWorld()
    w.spi(40, 0x80)
    w.dist(0x204, 0x100)
    expect(w.inputs()).toBe('irq')
    w.gic.setSpi(40, true)
    w.dist(0x284, 0x100)
    expect(w.dist(0x204)).toBe(0x100)
    w.gic.setSpi(40, false)
    expect(w.dist(0x204)).toBe(0)
  })

  it('EOImode splits the priority drop from deactivation by ICC_DIR', () => {
    const w = gicWorld()
    w.spi(40, 0x80)
    w.gic.setSpi(40, true)
    w.setIcc('DIR', 40)
    w.setIcc('CTLR', 2)
    expect(w.icc('IAR1')).toBe(40)
    w.setIcc('EOIR1', 40)
    expect([w.icc('RPR'), w.dist(0x304), w.inputs()]).toEqual([0xff, 0x100, ''])
    w.setIcc('DIR', 40)
    expect([w.dist(0x304), w.inputs()]).toEqual([0, 'irq'])
  })

  it.each([1020, 1021, 1022, 1023])('EOIR of the special id %i does nothing', intid => {
    const w = gicWorld()
    w.spi(40, 0x80)
    w.gic.setSpi(40, true)
    w.icc('IAR1')
    w.setIcc('EOIR1', intid)
    expect(w.icc('RPR')).toBe(0x80)
  })

  it('ISACTIVER keeps an interrupt from being signalled; ICACTIVER lets it', () => {
    const w = gicWorld()
    w.spi(40, 0x80)
    w.gic.setSpi(40, true)
    w.dist(0x304, 0x100)
    expect(w.inputs()).toBe('')
    w.dist(0x384, 0x100)
    expect(w.inputs()).toBe('irq')
  })
})

describe('priorities (4.8)', () => {
  it('the highest priority is taken first, and of equals the lowest id', () => {
    const w = gicWorld()
    for (const [intid, priority] of [
      [50, 0x80],
      [40, 0x40],
      [60, 0x40],
    ] as const) {
      w.spi(intid, priority)
      w.gic.setSpi(intid, true)
    }
    const taken = [0, 1, 2].map(() => {
      const intid = w.icc('HPPIR1')
      w.gic.setSpi(intid, false)
      return intid
    })
    expect(taken).toEqual([40, 60, 50])
  })

  it('a higher priority preempts; priorities drop in the order they were taken', () => {
    const w = gicWorld()
    w.spi(40, 0x80)
    w.spi(41, 0x40)
    w.gic.setSpi(40, true)
    expect(w.icc('IAR1')).toBe(40)
    w.gic.setSpi(41, true)
    expect(w.inputs()).toBe('irq')
    expect([w.icc('IAR1'), w.icc('RPR'), w.icc('AP1R0')]).toEqual([41, 0x40, 0x1_0100])
    w.setIcc('EOIR1', 41)
    expect([w.icc('RPR'), w.icc('AP1R0')]).toEqual([0x80, 0x1_0000])
    w.setIcc('EOIR1', 40)
    expect(w.icc('RPR')).toBe(0xff)
  })

  it.each([
    ['BPR1 3: all five bits preempt', 3, 0x88, 0x80, true],
    ['BPR1 4: bit 3 is subpriority', 4, 0x88, 0x80, false],
    ['BPR1 4: bit 4 preempts', 4, 0x90, 0x80, true],
    ['BPR1 7: halves', 7, 0xf0, 0x80, false],
    ['BPR1 7: the upper half preempts the lower', 7, 0x80, 0x78, true],
  ])('%s', (_, point, running, arriving, preempts) => {
    const w = gicWorld()
    w.setIcc('BPR1', point)
    w.spi(40, running)
    w.spi(41, arriving)
    w.gic.setSpi(40, true)
    w.icc('IAR1')
    w.gic.setSpi(41, true)
    expect(w.inputs()).toBe(preempts ? 'irq' : '')
  })

  it.each([
    ['BPR0 is at least 2', 'BPR0', 0, 2],
    ['BPR0 7', 'BPR0', 7, 7],
    ['BPR1 is at least 3', 'BPR1', 0, 3],
    ['PMR has five bits', 'PMR', 0x7f, 0x78],
    ['CTLR has CBPR and EOImode', 'CTLR', 0xffff_ffff, 0x403],
    ['IGRPEN1 has one bit', 'IGRPEN1', 0xfffe, 0],
    ['AP0R0 has 32 bits', 'AP0R0', 0xffff_ffff, 0xffff_ffff],
  ] as const)('%s', (_, name, written, read) => {
    const w = gicWorld()
    w.setIcc(name, written)
    expect(w.icc(name)).toBe(read)
  })

  it('with CBPR set, BPR1 reads one more than BPR0 and takes no writes', () => {
    const w = gicWorld()
    w.setIcc('CTLR', 1)
    w.setIcc('BPR0', 4)
    w.setIcc('BPR1', 7)
    expect(w.icc('BPR1')).toBe(5)
    w.setIcc('BPR0', 7)
    expect(w.icc('BPR1')).toBe(7)
  })

  it.each([
    ['a priority equal to the mask waits', 0x80, ''],
    ['a higher one is signalled', 0x88, 'irq'],
  ])('PMR: %s', (_, mask, seen) => {
    const w = gicWorld()
    w.spi(40, 0x80)
    w.gic.setSpi(40, true)
    w.setIcc('PMR', mask)
    expect([w.inputs(), w.icc('HPPIR1')]).toEqual([seen, 40])
  })

  it('IPRIORITYR takes bytes and words, and keeps five bits of each', () => {
    const w = gicWorld()
    w.dist(0x428, 0xff07_3f80 | 0)
    w.gic.distributor.write(0x42a, 1, 0xa7n)
    expect([w.dist(0x428), w.gic.distributor.read(0x42b, 1)]).toEqual([0xf8a0_3880, 0xf8n])
  })
})

describe('groups (4.6)', () => {
  it('group 0 is FIQ and group 1 IRQ, each with its own acknowledgement', () => {
    const w = gicWorld()
    w.spi(40, 0x80, { group: 0 })
    w.gic.setSpi(40, true)
    expect(w.inputs()).toBe('fiq')
    expect([w.icc('HPPIR1'), w.icc('IAR1'), w.icc('HPPIR0'), w.icc('IAR0')]).toEqual([
      1023, 1023, 40, 40,
    ])
    w.setIcc('EOIR1', 40)
    expect(w.icc('RPR')).toBe(0x80)
    w.setIcc('EOIR0', 40)
    expect([w.icc('RPR'), w.icc('AP0R0')]).toEqual([0xff, 0])
  })

  it.each([
    ['the distributor', (w: ReturnType<typeof gicWorld>) => w.dist(0, 1)],
    ['the CPU interface', (w: ReturnType<typeof gicWorld>) => w.setIcc('IGRPEN1', 0)],
  ])('a group that %s disables makes room for the other', (_, disable) => {
    const w = gicWorld()
    w.spi(40, 0x20)
    w.spi(41, 0x80, { group: 0 })
    w.gic.setSpi(40, true)
    w.gic.setSpi(41, true)
    expect(w.inputs()).toBe('irq')
    disable(w)
    expect(w.inputs()).toBe('fiq')
  })
})

describe('who is interrupted', () => {
  it('an SPI goes where its route says, and nowhere when no processor has that affinity (4.3)', () => {
    const w = gicWorld({ processors: 2 })
    w.spi(40, 0x80)
    w.gic.setSpi(40, true)
    const seen = () => [w.inputs(0), w.inputs(1)]
    expect(seen()).toEqual(['irq', ''])
    w.gic.distributor.write(0x6000 + 8 * 40, 8, 1n)
    expect(seen()).toEqual(['', 'irq'])
    w.dist(0x6000 + 8 * 40 + 4, 1)
    expect(seen()).toEqual(['', ''])
    expect(w.gic.distributor.read(0x6000 + 8 * 40, 8)).toBe(0x1_0000_0001n)
  })

  it("PPIs are each processor's own; GICD has no words for them", () => {
    const w = gicWorld({ processors: 2 })
    for (const cpu of [0, 1]) w.redist(SGI + 0x100, 1 << 27, cpu)
    w.gic.setPpi(1, 27, true)
    expect([w.inputs(0), w.inputs(1)]).toEqual(['', 'irq'])
    expect([w.redist(SGI + 0x200, undefined, 1), w.dist(0x100)]).toEqual([1 << 27, 0])
  })

  it.each([
    ['a target list', 0x0300_0002n, ['', 'irq', '']],
    ['two targets', 0x0300_0003n, ['irq', 'irq', '']],
    ['all but the sender', (1n << 40n) | 0x0300_0000n, ['', 'irq', 'irq']],
    ['another Aff1', 0x0301_0002n, ['', '', '']],
    ['another Aff3', (1n << 48n) | 0x0300_0002n, ['', '', '']],
  ])('ICC_SGI1R: %s', (_, value, seen) => {
    const w = gicWorld({ processors: 3 })
    for (const cpu of [0, 1, 2]) w.redist(SGI + 0x100, 8, cpu)
    w.setIcc('SGI1R', value)
    expect([0, 1, 2].map(cpu => w.inputs(cpu))).toEqual(seen)
    const target = seen.indexOf('irq')
    if (target >= 0) expect(w.icc('IAR1', target)).toBe(3)
  })

  it.each(['SGI0R', 'ASGI1R'] as const)('ICC_%s reaches SGIs of group 0 alone', name => {
    const w = gicWorld()
    w.redist(SGI + 0x100, 3)
    w.redist(SGI + 0x80, 2)
    w.setIcc(name, 0x0100_0001)
    expect(w.inputs()).toBe('')
    w.setIcc(name, 0x0000_0001)
    expect(w.inputs()).toBe('fiq')
  })

  it('a redistributor whose processor sleeps forwards nothing (GICR_WAKER)', () => {
    const w = gicWorld()
    w.redist(SGI + 0x100, 1)
    w.setIcc('SGI1R', 1)
    w.redist(0x14, 2)
    expect([w.redist(0x14), w.inputs()]).toEqual([6, ''])
    w.redist(0x14, 0)
    expect([w.redist(0x14), w.inputs()]).toEqual([0, 'irq'])
  })
})

describe('what KVM sees through its attributes (arm-vgic-v3)', () => {
  it('ISPENDR is the latch, replaced by a write; ICPENDR is nothing', () => {
    const w = gicWorld()
    const { distributor } = w.gic
    w.gic.setSpi(40, true)
    expect([w.dist(0x204), distributor.userRead(0x204), distributor.userRead(0x284)]).toEqual([
      0x100, 0, 0,
    ])
    distributor.userWrite(0x204, 0x30)
    distributor.userWrite(0x204, 0x10)
    distributor.userWrite(0x284, 0x10)
    expect(distributor.userRead(0x204)).toBe(0x10)
  })

  it.each([
    ['GICD_IIDR as it is', 0x8, 0x4b00_343b, 'done'],
    ['GICD_IIDR of another', 0x8, 0x4b00_143b, 'refused'],
    ['no register', 0x5000, 1, 'missing'],
    ['no word', 0x81, 1, 'missing'],
    ['past the frame', 0x1_0000, 1, 'missing'],
  ])('writing %s: %s', (_, offset, value, result) => {
    expect(gicWorld().gic.distributor.userWrite(offset, value)).toBe(result)
  })

  it('LEVEL_INFO has lines of 32 interrupts; SGIs have none', () => {
    const w = gicWorld()
    w.gic.setLines(0, 0, -1)
    w.gic.setLines(0, 32, 0x101)
    expect([w.gic.lines(0, 0), w.gic.lines(0, 32), w.gic.lines(0, 96)]).toEqual([
      0xffff_0000, 0x101, 0,
    ])
  })
})

it('a GIC saved in the middle of things goes on in another', () => {
  const from = gicWorld({ processors: 2 })
  from.spi(40, 0x80)
  from.spi(41, 0x40)
  from.gic.setSpi(40, true)
  from.icc('IAR1')
  from.gic.setSpi(41, true)
  from.dist(0x6000 + 8 * 40, 1)
  const to = gicWorld({ processors: 2 })
  to.gic.restore(from.gic.save())
  expect([to.inputs(), to.icc('IAR1'), to.icc('RPR')]).toEqual(['irq', 41, 0x40])
  to.gic.setSpi(41, false)
  to.setIcc('EOIR1', 41)
  to.setIcc('EOIR1', 40)
  expect([to.icc('RPR'), to.inputs(0), to.inputs(1)]).toEqual([0xff, '', 'irq'])
  expect(() => gicWorld().gic.restore(from.gic.save())).toThrow('2 processors')
})

it('no access of any kind throws, and state stays consistent (seed 20)', () => {
  const w = gicWorld({ processors: 2 })
  const draw = xorshift(20)
  const pick = <T>(list: readonly T[]): T => list[draw(list.length)]!
  const { distributor, processors, its } = w.gic
  const targets = [distributor, processors[0]!.redistributor, processors[1]!.redistributor, its!]
  for (let i = 0; i < 20_000; i++) {
    const target = pick(targets)
    const span = target === distributor ? 0x1_0000 : 0x2_0000
    const size = pick([1, 2, 4, 8] as const)
    const offset = draw(2) ? draw(0x1000) : draw(span - 8)
    const value = (BigInt(draw(2 ** 32)) << 32n) | BigInt(draw(2 ** 32))
    if (draw(2)) target.read(offset, size)
    else target.write(offset, size, BigInt.asUintN(size * 8, value))
    const register = pick([...processors[draw(2)]!.registers.values()])
    if (draw(2)) register.read?.()
    else register.write?.(value)
    w.inputs(0)
    const running = w.icc('RPR')
    expect(running === 0xff || running % 8 === 0).toBe(true)
  }
})
