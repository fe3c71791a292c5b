import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { main } from '../../src/cli/program.js'

const folder = mkdtempSync(join(tmpdir(), 'vfio-emu-'))
afterAll(() => rmSync(folder, { recursive: true }))
const history = join(folder, 'run.history')

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

const journey = (text: string, end: string) =>
  text.slice(text.indexOf('\njourney\n'), text.indexOf(`\n${end}\n`)).trimEnd()

describe('vfio-emu replay', () => {
  let recorded: Awaited<ReturnType<typeof cli>>
  beforeAll(async () => {
    recorded = await cli('run', '--record', history)
  })

  it('tells the story of the recorded run, step for step, and finds the same state', async () => {
    expect(recorded.status).toBe(0)
    const { status, stdout } = await cli('replay', history)
    expect(status).toBe(0)
    expect(journey(stdout, 'replay')).toBe(journey(recorded.stdout, 'teardown'))
    expect(stdout).toMatch(/state +([0-9a-f]{64})\n +recorded +\1\n/)
    expect(stdout).toContain('the same answers, the same state')
  })

  it('stops where it is told to, with the page request of the guest on its way', async () => {
    const { status, stdout } = await cli('replay', history, '--until', '300')
    expect(status).toBe(0)
    expect(stdout).toMatch(/inputs +300 of \d+/)
    expect(stdout).toMatch(/held +containers 1, devices 1, mappings 1, pasidContexts 1, pasids 1/)
  })

  it('speaks NDJSON', async () => {
    const { stdout } = await cli('replay', history, '--json')
    const lines = stdout
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as { topic: string })
    expect(lines[0]).toMatchObject({ topic: 'machine' })
    expect(lines.at(-1)).toMatchObject({ topic: 'replay', same: true })
  })

  it('names the input where a run goes another way, with exit status 1', async () => {
    const file = join(folder, 'changed.history')
    writeFileSync(file, readFileSync(history, 'utf8').replace('"answer":"ok 3"', '"answer":"ok 4"'))
    const { status, stdout } = await cli('replay', file)
    expect(status).toBe(1)
    expect(stdout).toMatch(
      /input \d+ of the history went another way: open answered "ok 3", recorded is "ok 4"/,
    )
  })

  it.each([
    ['a file that is not there', undefined, /cannot read the history .*ENOENT/],
    ['a file that is no history', 'hello', /line 1 of the history is no JSON object/],
    ['a file cut short', '{"history":1,"machine":"{}"}', /cut short/],
    [
      'no machine',
      '{"history":1,"machine":"no"}\n{"end":0,"state":null}',
      /does not describe a machine/,
    ],
    [
      "a program's device",
      '{"history":1,"machine":"{\\"devices\\":[{\\"model\\":\\"mine\\"}]}"}\n{"end":0,"state":null}',
      /its device "mine" is a program's: restore it there/,
    ],
    [
      'a machine that cannot be',
      '{"history":1,"machine":"{\\"ramBytes\\":5,\\"devices\\":[]}"}\n{"end":0,"state":null}',
      /its machine cannot be built: host RAM of 5 bytes/,
    ],
  ])('%s is one line and exit status 2', async (name, content, message) => {
    const file = join(folder, `${name}.history`)
    if (content !== undefined) writeFileSync(file, content)
    const { status, stderr } = await cli('replay', file)
    expect(status).toBe(2)
    expect(stderr).toMatch(message)
    expect(stderr.trim().split('\n')).toHaveLength(1)
  })

  it('refuses a number of inputs that there are not', async () => {
    expect((await cli('replay', history, '--until', 'x')).status).toBe(2)
    const { stderr } = await cli('replay', history, '--until', '99999')
    expect(stderr).toMatch(/has \d+ inputs, not 99999/)
  })

  it('cannot record to a place that is none', async () => {
    const { status, stderr } = await cli('run', '--record', join(folder, 'no', 'such', 'place'))
    expect(status).toBe(2)
    expect(stderr).toMatch(/cannot write the history/)
  })
})
