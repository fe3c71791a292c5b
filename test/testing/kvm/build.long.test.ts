import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { isLong } from '../../support/long.js'

const guests = resolve(import.meta.dirname, '../../../guests')
const built = join(guests, 'built/tests')
const recorded = readFileSync(join(built, 'toolchain.txt'), 'utf8')
const versionOf = (compiler: string) =>
  spawnSync(compiler, ['--version'], { encoding: 'utf8' }).stdout?.split('\n')[0]
const here = `${versionOf('gcc')}\n${versionOf('aarch64-linux-gnu-gcc')}\n`

describe('guest tests', () => {
  it('name the compilers that built them', () => expect(recorded).toMatch(/gcc.*\naarch64.*\n/i))

  // Other compilers give other bytes, so only those that built the committed programs can be compared.
  it.runIf(isLong && here === recorded && process.arch === 'x64')(
    'are what their sources build',
    () => {
      const out = mkdtempSync(join(tmpdir(), 'vfio-emu-tests-'))
      try {
        execFileSync(join(guests, 'tests/build.sh'), [out], { stdio: 'pipe' })
        const programs = readdirSync(built).filter(name => name.endsWith('.elf'))
        expect(readdirSync(out).sort()).toEqual(readdirSync(built).sort())
        for (const name of programs) {
          const same = readFileSync(join(out, name)).equals(readFileSync(join(built, name)))
          expect(same, name).toBe(true)
        }
      } finally {
        rmSync(out, { recursive: true })
      }
    },
  )
})
