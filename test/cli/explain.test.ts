import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { toJson } from '../../src/cli/output.js'
import { main } from '../../src/cli/program.js'
import { explain } from '../../src/explain/index.js'
import { Bench as SmmuBench } from '../iommu/smmu/bench.js'
import { Bench, FULL } from '../iommu/vtd/bench.js'
import { rows } from '../iommu/vtd/fault-stories.js'

const folder = mkdtempSync(join(tmpdir(), 'vfio-emu-'))
afterAll(() => rmSync(folder, { recursive: true }))
const file = (name: string, content: string) => {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

/** One command line: exit status and what it wrote. */
async function cli(...args: string[]) {
  const written = { stdout: '', stderr: '' }
  const spies = (['stdout', 'stderr'] as const).map(name =>
    vi.spyOn(process[name], 'write').mockImplementation(text => {
      written[name] += String(text)
      return true
    }),
  )
  try {
    return { status: await main(args), ...written }
  } finally {
    for (const spy of spies) spy.mockRestore()
  }
}

describe('vfio-emu explain', () => {
  it.each(['explain', 'walk'])('%s has help', async command => {
    const { status, stdout } = await cli(command, '--help')
    expect(status).toBe(0)
    expect(stdout).toMatch(/Usage: vfio-emu/)
  })

  it.each([
    ['NDJSON', (event: object) => `${toJson({ time: 0, event: 'vtd.fault', ...event })}\n`],
    [
      'Perfetto',
      (event: object) =>
        `{"traceEvents":[\n${toJson({ name: 'vtd.fault', ts: 0, args: event })}\n]}\n`,
    ],
  ])('explains every fault of a trace as the API does: %s', async (_, write) => {
    const row = rows.find(r => r[2] === 'SGN.6 of the final page')!
    const b = new Bench()
    row[3](b)
    const { status, stdout } = await cli('explain', file('trace', write(b.unit.lastFault!)))
    expect(status).toBe(0)
    expect(stdout).toBe(`${explain(b.unit.lastFault!)}\n`)
  })

  it('explains SMMUv3 faults, and refused requests when asked, in the order of the trace', async () => {
    const s = new SmmuBench().start()
    s.dma(0x1000n)
    const dma = {
      requester: 1,
      pasid: -1,
      hi: 0,
      lo: 0,
      length: 4,
      write: false,
      at: 0,
      output: -1,
      failure: 'unclaimed',
    }
    const path = file(
      'mixed',
      [
        { time: 1, event: 'dma', ...dma },
        { event: 'smmu.fault', ...s.unit.lastFault! },
        { time: 3, event: 'dma', ...dma, failure: undefined },
      ]
        .map(toJson)
        .join('\n'),
    )
    const lines = (await cli('explain', '--dma', '--json', path)).stdout.trim().split('\n')
    expect(lines.map(l => (JSON.parse(l) as { title: string }).title)).toEqual([
      expect.stringMatching(/^DMA unclaimed/),
      expect.stringMatching(/^SMMUv3 event 0x04 C_BAD_STE/),
    ])
    expect((await cli('explain', path)).stdout).toBe(`${explain(s.unit.lastFault!)}\n`)
  })

  it('says so when a trace has no faults', async () => {
    const { status, stdout } = await cli(
      'explain',
      file('empty', '{"time":0,"event":"note","text":"x"}\n'),
    )
    expect([status, stdout]).toEqual([0, expect.stringMatching(/^no faults in /)])
  })

  it.each(['0x59', '59h', '89', 'SPT.2', 'pasidEntryNotPresent'])(
    '--vtd-reason %s',
    async reason => {
      expect((await cli('explain', '--vtd-reason', reason)).stdout).toMatch(
        /^VT-d fault 59h \(SPT\.2\)/,
      )
    },
  )

  // biome-ignore format: table
  it.each([
    ['two words',         ['0x0000000040005000', '0xc000057180000100']],
    ['the other way',     ['0xc000057180000100', '0x0000000040005000']],
    ['one argument',      ['40005000 c000057180000100']],
    ['four 32-bit words', ['40005000', '0', '80000100', 'c0000571']],
  ])('--vtd-record as %s', async (_, words) => {
    const { stdout } = await cli('explain', '--vtd-record', ...words)
    expect(stdout).toMatch(/^VT-d fault 71h/)
    expect(stdout).toContain('0000:01:00.0 wanted to read at 0x40005000 with PASID 5')
  })

  // biome-ignore format: table
  it.each([
    ['four words',   ['0x0000010000000010', '0', '0x40005000', '0']],
    ['eight words',  ['10', '100', '0', '0', '40005000', '0', '0', '0']],
    ['a name',       ['F_TRANSLATION']],
    ['a number',     ['0x10']],
  ])('--smmu-event as %s', async (_, words) => {
    expect((await cli('explain', '--smmu-event', ...words)).stdout).toMatch(/^SMMUv3 event 0x10 F_TRANSLATION/)
  })

  // biome-ignore format: table
  it.each<readonly [string, () => string[], RegExp]>([
    ['nothing to explain',     () => [],                                               /give one of FILE/],
    ['two things at once',     () => ['--vtd-reason', '1', '--smmu-event', '10'],       /give one of FILE/],
    ['an unknown reason',      () => ['--vtd-reason', '0xee'],                          /no VT-d fault reason '0xee'/],
    ['a word that is no word', () => ['--vtd-record', 'xyz'],                           /'xyz' is no hexadecimal word/],
    ['too few words',          () => ['--vtd-record', '1'],                             /give 2 words of 64 bits or 4 of 32; here are 1/],
    ['a record without F',     () => ['--vtd-record', '1', '2'],                        /holds no fault/],
    ['an unknown event',       () => ['--smmu-event', 'ee', '0', '0', '0'],             /event 0xee/],
    ['a missing trace',        () => [join(folder, 'none')],                            /cannot read trace/],
    ['a file that is no trace', () => [file('bad', 'hello\n')],                         /bad:1: /],
    ['JSON that is no trace',  () => [file('json', '{"a":1}\n')],                       /json:1: no trace event/],
    ['half a fault',           () => [file('half', '{"time":0,"event":"vtd.fault"}\n')],  /lacks what an explanation needs/],
  ])('refuses %s in one line with status 2', async (_, args, message) => {
    const { status, stderr, stdout } = await cli('explain', ...args())
    expect([status, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(message)
    expect(stderr).not.toMatch(/\n\s+at /)
  })

  it('reads what `run --trace` writes', async () => {
    const path = join(folder, 'run.ndjson')
    await cli('run', '--trace', path)
    expect(readFileSync(path, 'utf8')).toContain('"event":"dma"')
    const { stdout } = await cli('explain', '--dma', path)
    expect(stdout).toMatch(/^DMA not-present: ATS: there is no translation now/)
  })
})

describe('vfio-emu run --detect-stale-use', () => {
  it('finds nothing in the main job, and says so', async () => {
    const { status, stdout } = await cli('run', '--detect-stale-use')
    expect(status).toBe(0)
    expect(stdout).toMatch(/^ {2}stale uses +0$/m)
  })
  it('explain explains what a trace holds of it', async () => {
    const b = new Bench({ detect: true })
    const { directory } = b.scalable()
    b.enable()
    const root = b.alloc()
    const leaf = b.map(root, 0x5000n, 0x50_0000n | FULL)
    b.firstStage(directory, 5, root)
    b.dma(0x5000n, { pasid: 5, write: true })
    b.clock.advance(1234)
    b.store(leaf, 0x51_0000n | FULL)
    b.dma(0x5000n, { pasid: 5, write: true })
    const [use] = b.detector!.uses
    const path = file('stale', `${toJson({ event: 'stale-use', ...use })}\n`)
    const { stdout } = await cli('explain', path)
    await expect(stdout).toMatchFileSnapshot('../golden/explain/stale-use.txt')
    expect(stdout).toBe(`${explain(use!)}\n`)
  })
})

describe('vfio-emu walk', () => {
  it('prints how an address of the main job is translated', async () => {
    const { status, stdout } = await cli(
      'walk',
      '--pasid',
      '1',
      '--iova',
      '0x7e1000008000',
      '--write',
    )
    expect(status).toBe(0)
    // Where things lie, and when, is not what this is about.
    const shape = stdout
      .replace(/\b[0-9a-f]{16}\b/g, '················')
      .replace(/0x[0-9a-f]{4,}/g, '0x…')
      .replace(/[0-9.]+ µs/, '… µs')
    await expect(shape).toMatchFileSnapshot('../golden/explain/walk-main-job.txt')
  })
  it('prints how an address of the arm64 main job is translated, from the STE on', async () => {
    const args = ['--iommu', 'smmuv3', '--pasid', '5', '--iova', '0x7e1000008000', '--write']
    const { status, stdout } = await cli('walk', ...args)
    expect(status).toBe(0)
    const shape = stdout
      .replace(/\b[0-9a-f]{16}\b/g, '················')
      .replace(/0x[0-9a-f]{4,}/g, '0x…')
      .replace(/[0-9.]+ µs/, '… µs')
    await expect(shape).toMatchFileSnapshot('../golden/explain/walk-arm64-main-job.txt')
  })
  it('says the same as JSON, and what is missing by its status', async () => {
    const { status, stdout } = await cli('walk', '--pasid', '1', '--iova', '0x1000', '--json')
    expect(status).toBe(1)
    expect(JSON.parse(stdout)).toMatchObject({ pasid: 1, iova: '0x1000', requester: 0x100 })
  })
  it('walks for requests without a PASID, through the second stage', async () => {
    const { stdout } = await cli('walk', '--iova', '4096', '--full')
    expect(stdout).toMatch(/PGTT secondStage/)
    expect(stdout).toMatch(/0x1000 is physical 0x/)
  })
  it('lists addresses to ask for', async () => {
    const { status, stderr } = await cli('walk', '--pasid', '1')
    expect(status).toBe(2)
    expect(stderr).toMatch(/give --iova; under PASID 1 the device used 0x7e/)
  })
  // biome-ignore format: table
  it.each([
    ['an address that is none', ['--iova', 'x'],                              /--iova x: write a number/],
    ['a PASID too large',       ['--iova', '0', '--pasid', '0x100000'],       /--pasid 0x100000: at most 0xfffff/],
    ['a device that is none',   ['--iova', '0', '--device', '0000:09:00.0'],  /the machine has 0000:01:00\.0/],
    ['more than 64 bits',       ['--iova', `0x1${'0'.repeat(16)}`],           /more than 64 bits/],
  ])('refuses %s in one line with status 2', async (_, args, message) => {
    const { status, stderr, stdout } = await cli('walk', ...args)
    expect([status, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(message)
  })
})
