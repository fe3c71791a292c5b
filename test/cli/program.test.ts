import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { main } from '../../src/cli/program.js'
import { VERSION } from '../../src/version.js'

const folder = mkdtempSync(join(tmpdir(), 'vfio-emu-'))
afterAll(() => rmSync(folder, { recursive: true }))
const file = (name: string, content: string | Uint8Array) => {
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

describe('vfio-emu', () => {
  it.each([[], ['run'], ['lspci'], ['abi']].map(c => [c.join(' ') || '(itself)', c] as const))(
    '%s has help',
    async (_, command) => {
      const { status, stdout } = await cli(...command, '--help')
      expect(status).toBe(0)
      expect(stdout).toMatch(/Usage: vfio-emu/)
    },
  )
  it("prints its version, which is the package's", async () => {
    const { version } = JSON.parse(
      readFileSync(resolve(import.meta.dirname, '../../package.json'), 'utf8'),
    )
    expect(VERSION).toBe(version)
    expect((await cli('--version')).stdout.trim()).toBe(version)
  })
})

describe('vfio-emu run', () => {
  it('tells the same story as text and as NDJSON, without colour when it is no terminal', async () => {
    const text = await cli('run')
    expect(text.status).toBe(0)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: an escape is what must not be there
    expect(text.stdout).not.toMatch(/\u001b/)
    for (const heading of ['machine', 'container', 'journey', 'teardown', 'summary'])
      expect(text.stdout).toMatch(new RegExp(`^${heading}$`, 'm'))
    const json = await cli('run', '--json')
    const lines = json.stdout
      .trim()
      .split('\n')
      .map(l => JSON.parse(l))
    expect(json.status).toBe(0)
    const steps = lines.filter(l => l.text !== undefined)
    for (const { text: said } of steps) expect(text.stdout).toContain(said)
    expect(lines.at(-1)).toMatchObject({
      topic: 'summary',
      verified: true,
      end: { kind: 'exit', code: 0 },
    })
  })
  it.each([
    [['--strict-sync'], 'arm64 guest'],
    [['--gdb', 'x'], 'TCP port'],
    [['--gdb', '65536'], 'TCP port'],
    [['--gdb', '0', '--all'], 'one guest image'],
    [['--gdb', '0', '--iommu', 'both'], 'one guest image'],
    [['--gdb', '0', '--guest', 'sev'], 'one guest image'],
  ])('run %j is refused: %s', async (options, why) => {
    const { status, stderr } = await cli('run', ...options)
    expect(status).toBe(2)
    expect(stderr).toContain(why)
  })
  it('runs the arm64 guest behind an SMMUv3, and both guests one after the other as npm start does', async () => {
    const both = await cli('run', '--iommu', 'both')
    expect(both.status).toBe(0)
    for (const line of ['x86-64 guest behind VT-d', 'arm64 guest behind an SMMUv3'])
      expect(both.stdout).toMatch(new RegExp(`^${line}$`, 'm'))
    expect(both.stdout.match(/^verified by the guest, nothing leaked$/gm)).toHaveLength(2)
    expect(both.stdout).toMatch(/02:00\.0 {2}PASID 5 .* ok, retried after the stall/)
    expect(both.stdout).toMatch(/tables +2 of the guest's bound whole/)
    const { scripts } = JSON.parse(
      readFileSync(resolve(import.meta.dirname, '../../package.json'), 'utf8'),
    )
    expect(scripts.start).toMatch(/main\.js run --iommu both$/)
  })
  it('takes an SMMUv3 from a machine file, and records and replays it', async () => {
    const machine = file(
      'smmu.json',
      JSON.stringify({
        iommu: 'smmuv3',
        ramMiB: 128,
        devices: [
          { at: '0000:01:00.0', model: 'sva-engine', stalls: true },
          { at: '0000:02:00.0', model: 'sva-engine' },
        ],
      }),
    )
    const history = join(folder, 'smmu.history')
    const run = await cli('run', '--machine', machine, '--record', history, '--detect-stale-use')
    expect(run.status).toBe(0)
    expect(run.stdout).toMatch(/stale uses +0$/m)
    expect((await cli('replay', history)).status).toBe(0)
  })
  it('writes a trace as NDJSON and in the format Perfetto opens', async () => {
    const [nd, chrome] = [join(folder, 't.ndjson'), join(folder, 't.json')]
    expect((await cli('run', '--trace', nd)).status).toBe(0)
    const events = readFileSync(nd, 'utf8')
      .trim()
      .split('\n')
      .map(l => JSON.parse(l))
    expect(new Set(events.map(e => e.event))).toEqual(
      expect.objectContaining({ size: expect.any(Number) }),
    )
    for (const name of ['dma', 'vtd.translate', 'vfio.ioctl', 'vfio.bind', 'guest.console'])
      expect(
        events.some(e => e.event === name),
        name,
      ).toBe(true)
    expect((await cli('run', '--trace', chrome)).status).toBe(0)
    expect(JSON.parse(readFileSync(chrome, 'utf8')).traceEvents).toHaveLength(events.length)
  })

  const guest = readFileSync(resolve(import.meta.dirname, '../../guests/built/sva-x86_64.elf'))
  // biome-ignore format: table
  const refused: [string, () => string[], RegExp][] = [
    ['an unknown command',        () => ['frobnicate'],                                           /unknown command/],
    ['an unknown option',         () => ['run', '--speed'],                                       /unknown option/],
    ['another IOMMU',             () => ['run', '--iommu', 'amd'],                                /Allowed choices/],
    ['a guest that is not there', () => ['run', '--guest', join(folder, 'none')],                 /cannot read guest image/],
    ['a guest that is no ELF',    () => ['run', '--guest', file('text', 'hello world, '.repeat(9))], /not an ELF file/],
    ['a truncated guest',         () => ['run', '--guest', file('short', guest.subarray(0, 5000))], /truncated/],
    ['an empty guest',            () => ['run', '--guest', file('empty', '')],                    /no ELF header/],
    ['a machine file of nonsense', () => ['run', '--machine', file('bad.json', '{')],             /machine file .*JSON/],
    ['a machine without devices', () => ['run', '--machine', file('none.json', '{"devices":[]}')], /at least one/],
    ['an unknown model',          () => ['run', '--machine', file('model.json', '{"devices":[{"at":"0000:01:00.0","model":"gpu"}]}')], /known are sva-engine/],
    ['a bad address',             () => ['run', '--machine', file('at.json', '{"devices":[{"at":"1.0","model":"dma-copy"}]}')], /0000:bb:00.f/],
    ['an unknown IOMMU in a file', () => ['run', '--machine', file('amd.json', '{"iommu":"amd"}')], /"vt-d" and "smmuv3" are there/],
    ['stalls behind VT-d',        () => ['run', '--machine', file('stall.json', '{"devices":[{"at":"0000:01:00.0","model":"dma-copy","stalls":true}]}')], /with an SMMUv3/],
    ['an x86-64 guest on arm64',  () => ['run', '--iommu', 'smmuv3', '--guest', file('x86', guest)],  /machine 62 is not arm64/],
    ['both with a file',          () => ['run', '--iommu', 'both', '--trace', join(folder, 't')],  /both goes with the default machines/],
    ['an unknown key',            () => ['run', '--machine', file('key.json', '{"cpus":4}')],     /unknown key 'cpus'/],
    ['an unwritable trace',       () => ['run', '--trace', join(folder, 'no/such/dir')],          /cannot write trace/],
    ['an unknown structure',      () => ['abi', 'vfio_dma_map'],                                  /did you mean .*vfio_iommu_type1_dma_map/],
    ['two dumps at once',         () => ['lspci', '-x', '-xxx'],                                  /choose one/],
  ]
  it.each(refused)('refuses %s in one line with status 2', async (_, args, message) => {
    const { status, stderr, stdout } = await cli(...args())
    expect(status).toBe(2)
    expect(stderr).toMatch(message)
    expect(stderr).not.toMatch(/\n\s+at /)
    expect(stdout).toBe('')
  })
  it('says why when a guest cannot use the machine: a device without PASIDs to bind', async () => {
    const { status, stdout } = await cli(
      'run',
      '--machine',
      file('copy.json', '{"devices":[{"at":"0000:01:00.0","model":"dma-copy"}]}'),
    )
    expect(status).toBe(1)
    expect(stdout).toMatch(/no sva-engine below/)
  })
})

describe('vfio-emu abi', () => {
  it('prints a structure with offsets, sizes and its ioctl', async () => {
    const { stdout } = await cli('abi', 'vfio_iommu_type1_pasid_request')
    expect(stdout).toMatch(/struct vfio_iommu_type1_pasid_request {2}16 bytes/)
    expect(stdout).toMatch(/VFIO_IOMMU_PASID_REQUEST {2}0x00003b76 \(15222\) {2}on a container/)
  })
  it('finds the structure of an ioctl, and prints JSON', async () => {
    const answer = JSON.parse((await cli('abi', 'VFIO_IOMMU_MAP_DMA', '--json')).stdout)
    expect(answer).toMatchObject({
      ctype: 'struct vfio_iommu_type1_dma_map',
      size: 32,
      ioctls: [{ number: 0x3b71 }],
    })
    expect(answer.members).toContainEqual({ offset: 16, size: 8, type: 'u64', member: 'iova' })
  })
  it('lists everything', async () => {
    const { stdout } = await cli('abi')
    for (const name of [
      'VFIO_IOMMU_NESTING_OP',
      'KVM_RUN',
      'struct kvm_sregs',
      'struct iommu_nesting_info',
    ])
      expect(stdout).toContain(name)
  })
})

describe('vfio-emu lspci', () => {
  it.each([
    ['-x', 4],
    ['-xxx', 16],
    ['-xxxx', 256],
  ])('%s dumps %i lines of 16 bytes a function', async (flag, lines) => {
    const { stdout } = await cli('lspci', flag)
    const functions = stdout.trim().split(/\n\n/)
    expect(functions).toHaveLength(2)
    for (const f of functions)
      expect(f.split('\n').filter(l => /^[0-9a-f]+: ([0-9a-f]{2} ?){16}$/.test(l))).toHaveLength(
        lines,
      )
  })
  it('lists and decodes', async () => {
    expect((await cli('lspci')).stdout).toMatch(/01:00\.0/)
    expect((await cli('lspci', '-v')).stdout).toMatch(/PASID/)
  })
})
