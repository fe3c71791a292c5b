// `vfio-emu run --guest sev`: an encrypted guest that gcc built, launched by both interfaces, and how it reads.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { main } from '../../src/cli/program.js'

async function cli(...args: string[]) {
  let stdout = ''
  const spy = vi.spyOn(process.stdout, 'write').mockImplementation(text => {
    stdout += String(text)
    return true
  })
  try {
    return { status: await main(args), stdout }
  } finally {
    spy.mockRestore()
  }
}

/** "the guest's own " */
const SECRET = '74 68 65 20 67 75 65 73 74 27 73 20 6f 77 6e 20'

describe('vfio-emu run --guest sev', () => {
  it('shows what guest, host and device see, names the DMA past the bounce buffers, and tells the monitor', async () => {
    const { status, stdout } = await cli('run', '--guest', 'sev', '--monitor')
    expect(status).toBe(0)
    const lines = [
      'launched by KVM_SEV_ISSUE_CMD (2016)',
      'LAUNCH_FINISH: measured to ',
      'SEV is active; C-bit 0x2f',
      `a private page, as I read it:     ${SECRET}`,
      'page 0x402000 as it lies in memory: ',
      `page 0x402000 as DBG_DECRYPT tells: ${SECRET}`,
      `page 0x400000 as it lies in memory: ${SECRET}`,
      'DMA through shared bounce buffers: every byte arrived',
      'a vCPU wrote it with the C-bit',
      'VFIO_IOMMU_MAP_DMA',
      'info sev (2016)',
      'launched by KVM_MEMORY_ENCRYPT_OP',
      `a private page, as I read it:     ${SECRET}`,
      'info sev (current)',
      'the host saw ciphertext only',
    ]
    let at = 0
    for (const line of lines) {
      const found = stdout.indexOf(line, at)
      expect(found, line).toBeGreaterThanOrEqual(at)
      at = found
    }
    // The second guest's policy forbids debugging: nothing is decrypted.
    expect(stdout.slice(stdout.indexOf('launched by KVM_MEMORY'))).not.toContain(
      'DBG_DECRYPT tells',
    )
    expect(stdout.match(/page 0x402000 as it lies in memory: (.*)/g)).not.toContain(SECRET)
  })

  it('tells programs the same, query-sev included', async () => {
    const { status, stdout } = await cli('run', '--guest', 'sev', '--monitor', '--json')
    expect(status).toBe(0)
    const lines = stdout
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as Record<string, unknown>)
    const monitors = lines.map(l => l['query-sev']).filter(v => v !== undefined)
    expect(monitors).toMatchObject([
      { enabled: true, interface: '2016', state: 'running', policy: 5 },
      { enabled: true, interface: 'current', state: 'running', policy: 1 },
    ])
    expect(lines.filter(l => l['topic'] === 'checker').length).toBe(4)
    expect(lines.at(-1)).toMatchObject({ topic: 'summary', verified: true })
  })

  it('C.4 row 13: of a guest that is not encrypted the monitor says so', async () => {
    const { status, stdout } = await cli('run', '--iommu', 'vt-d', '--monitor', '--json')
    expect(status).toBe(0)
    expect(JSON.parse(stdout.trim().split('\n').at(-1)!)).toMatchObject({
      'query-sev': { enabled: false },
    })
  })

  const example = `[sev-launch]
flags = "00000000"
policy = "0x5"
nonce = "0123456789abcdef"
vcpu_count = "1"
vcpu_length = "30"
vcpu_mask = "00ab"
`
  const withFile = async (text: string, options = 'type=unencrypted', ...more: string[]) => {
    const folder = mkdtempSync(join(tmpdir(), 'vfio-emu-sev-'))
    const errors: string[] = []
    const spy = vi
      .spyOn(process.stderr, 'write')
      .mockImplementation(t => errors.push(String(t)) > 0)
    try {
      const path = join(folder, 'sev.conf')
      writeFileSync(path, text)
      const { status, stdout } = await cli(
        'run',
        '--guest',
        'sev',
        '--sev',
        `config=${path},${options}`,
        ...more,
      )
      return { status, stdout, error: errors.join('').replaceAll(path, 'sev.conf') }
    } finally {
      spy.mockRestore()
      rmSync(folder, { recursive: true })
    }
  }

  it('C-1 C-2 launches by a file of the user', async () => {
    const { status, stdout } = await withFile(example)
    expect(status).toBe(0)
    expect(stdout).toContain('LAUNCH_START: guest 1, policy 0x5')
    expect(stdout).not.toContain('KVM_MEMORY_ENCRYPT_OP')
  })

  // biome-ignore format: table
  it.each([
    ['C-2 no type',              example,                    'format=raw',       [],               '--sev needs config=FILE and type=unencrypted'],
    ['C-2 an unknown type',      example,                    'type=sealed',      [],               "SEV: unsupported type 'sealed'"],
    ['C-2 an encrypted image',   example,                    'type=encrypted',   [],               'does not arrive encrypted'],
    ['C-11 a file that is none', 'policy',                   'type=unencrypted', [],               'sev.conf:1: could not parse'],
    ['C-7 an absent key',        example,                    'type=unencrypted', ['--sev-strict'], 'sev-launch.dh_pub_qx: is required'],
    ['C-16 a policy beyond it',  example.replace('0x5', '0x20005'), 'type=unencrypted', [],        'POLICY_FAILURE'],
  ])('%s is said in a line', async (_, text, options, more, message) => {
    const { status, error } = await withFile(text, options, ...more)
    expect(status).toBe(2)
    expect(error).toContain(message)
  })

  it('C-12 launches by objects', async () => {
    const objects = [
      'security-policy,memory-encryption=g',
      'sev-guest-info,id=g,launch=l',
      'sev-launch-info,id=l,policy=p',
      'sev-policy-info,id=p,debug=on',
    ]
    const { status, stdout } = await cli(
      'run',
      '--guest',
      'sev',
      ...objects.flatMap(o => ['--sev-object', o]),
    )
    expect(status).toBe(0)
    expect(stdout).toContain('LAUNCH_START: guest 1, policy 0x5')
  })

  it('C-12 reads objects from a file, and says which file is not there', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'vfio-emu-sev-'))
    const errors = vi.spyOn(process.stderr, 'write').mockImplementation(() => true)
    try {
      const path = join(folder, 'vm.conf')
      const groups = [
        '[object "g"]\nqom-type = "sev-guest-info"\nlaunch = "l"',
        '[object "l"]\nqom-type = "sev-launch-info"\npolicy = "0x4"',
        '[object]\nqom-type = "security-policy"\nmemory-encryption = "g"',
      ]
      writeFileSync(path, groups.join('\n'))
      const { status, stdout } = await cli('run', '--guest', 'sev', '--sev-object', `@${path}`)
      expect(status).toBe(0)
      expect(stdout).toContain('LAUNCH_START: guest 1, policy 0x4')
      expect((await cli('run', '--guest', 'sev', '--sev-object', `@${path}x`)).status).toBe(2)
      expect(errors.mock.calls.at(-1)![0]).toContain('vm.confx cannot be opened')
    } finally {
      errors.mockRestore()
      rmSync(folder, { recursive: true })
    }
  })
})
