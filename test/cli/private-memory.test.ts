// `vfio-emu run --guest private-memory`: D-29 by a guest that gcc built, F-2 beside a device, and how it reads.
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

describe('vfio-emu run --guest private-memory', () => {
  it('verifies every byte, names the DMA that was forgotten, and says so line by line', async () => {
    const { status, stdout } = await cli('run', '--guest', 'private-memory')
    expect(status).toBe(0)
    const lines = [
      'MAP_GPA_RANGE: GPA 0x40000000, 4 KiB, becomes private',
      'the VMM reads 0x11 at GPA 0x40000000',
      'the device reads the page at GPA 0x40000000: refused',
      'private once more: the file kept what I wrote',
      'DMA write of 4096 bytes by 0000:01:00.0 at 0x40000000',
      'withdrawn: VM of process 2: KVM_SET_MEMORY_ATTRIBUTES made its page private',
      'without and with fallocate: 1064 conversions',
      'private stayed private, nothing leaked',
    ]
    let at = 0
    for (const line of lines) {
      const found = stdout.indexOf(line, at)
      expect(found, line).toBeGreaterThanOrEqual(at)
      at = found
    }
    // biome-ignore lint/suspicious/noControlCharactersInRegex: an escape is what must not be there
    expect(stdout).not.toMatch(/\u001b/)
  })
})
