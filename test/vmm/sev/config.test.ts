// The `sev` option group, the [sev-launch] file, and the same as objects.
import { describe, expect, it } from 'vitest'
import { parseOption } from '../../../src/vmm/sev/config-file.js'
import { GUEST_TYPE, MachineSev } from '../../../src/vmm/sev/init.js'
import { type ConfigVariant, parseLaunchConfig } from '../../../src/vmm/sev/launch-config.js'
import { objectsOf, objectsOfFile, resolveGuest } from '../../../src/vmm/sev/objects.js'
import { ABSENT, OptionSet, parseNumber, SevConfigError } from '../../../src/vmm/sev/options.js'

/** The example of the proposal's own text. */
const EXAMPLE = `
[sev-launch]
flags = "00000000"
policy = "000000"
dh_pub_qx = "0123456789abcdef0123456789abcdef"
dh_pub_qy = "0123456789abcdef0123456789abcdef"
nonce = "0123456789abcdef"
vcpu_count = "1"
vcpu_length = "30"
vcpu_mask = "00ab"
`
const parse = (text: string, variant?: ConfigVariant) =>
  parseLaunchConfig(text, 'sev.conf', variant)
const group = (...lines: string[]) => `[sev-launch]\n${lines.join('\n')}\n`

function init(
  option: string | undefined,
  files: Record<string, string> = { f: EXAMPLE },
  kvm = true,
) {
  const messages: string[] = []
  const sev = new MachineSev()
  const code = sev.init(option === undefined ? undefined : parseOption(`sev,${option}`), {
    kvm,
    readFile: path => files[path],
    message: text => messages.push(text),
  })
  return { code, messages, sev }
}

describe('the option group (C-1 to C-5, C-11)', () => {
  it('C-1 C-2 type=unencrypted: 0, and the image is encrypted at launch', () => {
    const { code, sev } = init('config=f,type=unencrypted')
    expect(code).toBe(0)
    expect(sev.state?.type).toBe(GUEST_TYPE.UNENCRYPTED)
    expect(GUEST_TYPE.UNENCRYPTED).toBe(1)
  })

  it('C-2 type=encrypted: 0, and the image arrives encrypted', () => {
    expect(init('config=f,type=encrypted').sev.state?.type).toBe(0)
  })

  it.each([
    ['no group at all', undefined],
    ['no config', 'type=unencrypted'],
    ['no type', 'config=f'],
  ])('C-2 %s: 1, quietly', (_, option) => {
    const { code, messages, sev } = init(option)
    expect([code, messages, sev.enabled]).toEqual([1, [], false])
  })

  it('C-2 any other type: 1, and the message names it', () => {
    const { code, messages, sev } = init('config=f,type=sealed')
    expect([code, messages]).toEqual([1, ["SEV: unsupported type 'sealed'"]])
    expect(sev.state).toBeUndefined()
  })

  it('C-3 enabled exactly when initialisation succeeded, and never without KVM', () => {
    expect(init('config=f,type=unencrypted').sev.enabled).toBe(true)
    expect(init('config=f,type=unencrypted', { f: EXAMPLE }, false)).toMatchObject({ code: 1 })
    expect(init('config=f,type=unencrypted', { f: EXAMPLE }, false).sev.enabled).toBe(false)
  })

  it('C-4 the state object has state, type and parameters, and a failed initialisation clears it', () => {
    const { sev } = init('config=f,type=unencrypted')
    expect(sev.state).toMatchObject({ state: 0, type: 1, launch: { policy: 0, vcpuLength: 30 } })
    const again = sev.init(parseOption('sev,config=f,type=odd'), {
      kvm: true,
      readFile: () => EXAMPLE,
      message() {},
    })
    expect([again, sev.state]).toEqual([1, undefined])
  })

  it('C-5 the file is parsed during initialisation', () => {
    expect(init('config=f,type=unencrypted').sev.state?.launch.nonce[1]).toBe(0x23)
  })

  it('C-11 a file that cannot be opened: 1', () => {
    const { code, messages, sev } = init('config=elsewhere,type=unencrypted')
    expect([code, messages, sev.enabled]).toEqual([1, ['SEV: elsewhere cannot be opened'], false])
  })

  it('C-11 a file that cannot be parsed is fatal', () => {
    expect(() => init('config=f,type=unencrypted', { f: 'flags' })).toThrow(
      new SevConfigError(
        `f:1: could not parse the configuration: 'flags' is neither [group] nor key = "value"`,
      ),
    )
  })
})

describe('the [sev-launch] group', () => {
  it('C-6 the documented example loads, in both variants', () => {
    for (const variant of ['compatible', 'strict'] as const) {
      const c = parse(EXAMPLE, variant)
      expect(c).toMatchObject({ flags: 0, policy: 0, vcpuCount: 1, vcpuLength: 30 })
      expect([...c.vcpuMask]).toEqual([0x00, 0xab])
      expect([...c.dhPubQx.subarray(0, 16)]).toEqual([...c.dhPubQy.subarray(0, 16)])
      expect([...c.dhPubQx.subarray(6, 9)]).toEqual([0xcd, 0xef, 0x01])
    }
  })

  it('C-6 shorter than the field: the rest is zero', () => {
    const c = parse(EXAMPLE)
    expect([c.dhPubQx.length, c.nonce.length]).toEqual([32, 16])
    expect([...c.dhPubQx.subarray(16)]).toEqual(new Array(16).fill(0))
    expect([...c.nonce.subarray(8)]).toEqual(new Array(8).fill(0))
    expect(c.given).toEqual({ nonce: 8, dh_pub_qx: 16, dh_pub_qy: 16 })
  })

  it('C-7 compatible: an absent number is 0xffffffff, an absent string zeros of length 0', () => {
    const c = parse('[sev-launch]')
    expect(c).toMatchObject({
      flags: ABSENT,
      policy: ABSENT,
      vcpuCount: ABSENT,
      vcpuLength: ABSENT,
      given: { nonce: 0, dh_pub_qx: 0, dh_pub_qy: 0 },
    })
    expect(c.nonce.every(b => b === 0) && c.vcpuMask.length === 0).toBe(true)
  })

  it('C-7 reading a number takes it away; reading a string does not', () => {
    const set = new OptionSet('sev-launch', undefined, 'here')
    set.set('policy', '5', 'here')
    set.set('nonce', 'ab', 'here')
    expect([set.takeNumber('policy'), set.takeNumber('policy')]).toEqual([5, ABSENT])
    expect([set.bytes('nonce', 16)?.[0], set.bytes('nonce', 16)?.[0]]).toEqual([0xab, 0xab])
  })

  it.each(['flags', 'policy', 'dh_pub_qx', 'dh_pub_qy', 'nonce', 'vcpu_count', 'vcpu_length'])(
    'C-7 strict: %s is required',
    key => {
      const without = EXAMPLE.split('\n').filter(l => !l.startsWith(`${key} `))
      expect(() => parse(without.join('\n'), 'strict')).toThrow(
        new SevConfigError(`sev.conf:2: sev-launch.${key}: is required`),
      )
      expect(() => parse(without.join('\n'), 'compatible')).not.toThrow()
    },
  )

  it.each([
    ['0', 0],
    ['000000', 0],
    ['17', 17],
    ['017', 15],
    ['0x1f', 31],
    ['0X1F', 31],
    ['4294967295', 0xffff_ffff],
    ['037777777777', 0xffff_ffff],
    ['0x00000000ffffffff', 0xffff_ffff],
  ])('C-8 the number %s is %i', (text, value) => {
    expect(parseNumber(text)).toBe(value)
    expect(parse(group(`policy = "${text}"`)).policy).toBe(value)
  })

  it.each([
    ['08', "'08' is no octal number"],
    ['0x', "'0x' is no hexadecimal number"],
    ['0xg', "'0xg' is no hexadecimal number"],
    ['1f', "'1f' is no decimal number"],
    ['', "'' is no decimal number"],
    ['-1', "'-1' is no decimal number"],
    ['1 ', "'1 ' is no decimal number"],
    ['4294967296', "'4294967296' has more than 32 bits"],
    ['0x100000000', "'0x100000000' has more than 32 bits"],
    ['040000000000', "'040000000000' has more than 32 bits"],
    ['99999999999999999999999', "'99999999999999999999999' has more than 32 bits"],
  ])('C-8 C-10 the number "%s" is refused with its line', (text, what) => {
    expect(() => parse(group('flags = "0"', `policy = "${text}"`))).toThrow(
      new SevConfigError(`sev.conf:3: sev-launch.policy: ${what}`),
    )
  })

  it('C-9 two digits a byte, in order, either case; the mask is as long as half its digits', () => {
    const c = parse(group('nonce = "0A1b"', 'vcpu_length = "8"', 'vcpu_mask = "ff00ff"'))
    expect([...c.nonce.subarray(0, 3)]).toEqual([0x0a, 0x1b, 0])
    expect([...c.vcpuMask]).toEqual([0xff, 0, 0xff])
  })

  // biome-ignore format: table
  it.each([
    ['hex longer than its field',    `nonce = "${'00'.repeat(17)}"`,      'sev.conf:2: sev-launch.nonce: 17 bytes do not fit in 16'],
    ['a key longer than its field',  `dh_pub_qx = "${'00'.repeat(33)}"`,  'sev.conf:2: sev-launch.dh_pub_qx: 33 bytes do not fit in 32'],
    ['an odd number of digits',      'nonce = "abc"',                     "sev.conf:2: sev-launch.nonce: 'abc' has an odd number of digits"],
    ['characters that are no digits','nonce = "0x12"',                    "sev.conf:2: sev-launch.nonce: '0x12' has characters that are not hexadecimal digits"],
    ['an unknown key',               'vcpus = "1"',                       'sev.conf:2: sev-launch.vcpus: no such key; known are flags, policy, dh_pub_qx, dh_pub_qy, nonce, vcpu_count, vcpu_length, vcpu_mask'],
    ['an unknown group',             '[sev-send]',                        "sev.conf:2: could not parse the configuration: there is no group 'sev-send'; known are sev-launch"],
  ])('C-10 %s', (_, line, message) => {
    expect(() => parse(group(line))).toThrow(new SevConfigError(message))
  })

  it('C-10 a mask longer than vcpu_length', () => {
    expect(() => parse(group('vcpu_length = "1"', 'vcpu_mask = "00ab"'))).toThrow(
      new SevConfigError('sev.conf:3: sev-launch.vcpu_mask: 2 bytes mask 1 bytes of state'),
    )
  })

  it.each(['', '# nothing here\n'])('C-10 a file without the group: %j', text => {
    expect(() => parse(text)).toThrow(
      new SevConfigError('sev.conf: there is no [sev-launch] group'),
    )
  })

  it('C-10 a key before any group', () => {
    expect(() => parse('flags = "1"')).toThrow(/sev.conf:1: could not parse.*before any group/)
  })

  it('C-11 several groups are read in order, and the last one wins whole', () => {
    const c = parse(`${group('policy = "1"', 'nonce = "aa"')}${group('policy = "2"')}`)
    expect([c.policy, c.given.nonce]).toEqual([2, 0])
    expect(() => parse(`${group('policy = "08"')}${group('policy = "2"')}`)).toThrow(/sev.conf:2/)
  })

  it('a key given twice counts once, as it was given last; comments and blank lines say nothing', () => {
    expect(parse(group('# a comment', '', 'policy = "1"', '  policy = "3"  ')).policy).toBe(3)
  })
})

describe('C-12 the same as objects', () => {
  const OBJECTS = [
    'security-policy,memory-encryption=sev0',
    'sev-guest-info,id=sev0,launch=launch0,send=send0',
    'sev-launch-info,id=launch0,flags.ks=on,policy=policy0,nonce=0123456789abcdef,dh-pub-qx=01,dh-pub-qy=02',
    'sev-policy-info,id=policy0,debug=on,nosend=on,fw_major=1,fw_minor=2',
    'sev-send-info,id=send0',
  ]

  it('resolve from the security policy down', () => {
    const guest = resolveGuest(objectsOf(OBJECTS))!
    expect(guest.kind).toBe('launch')
    expect(guest.send?.id).toBe('send0')
    // debug 0, reserved one 2, no send 3, firmware 1.2
    expect(guest.config).toMatchObject({ flags: 1, policy: 0x0201_000d })
    expect([guest.config.dhPubQx[0], guest.config.dhPubQy[0], guest.config.nonce[1]]).toEqual([
      1, 2, 0x23,
    ])
  })

  it('are the same in a file', () => {
    const file = `
[object "sev0"]
qom-type = "sev-guest-info"
launch = "launch0"
[object "launch0"]
qom-type = "sev-launch-info"
policy = "0x1"
nonce = "ab"
[object]
qom-type = "security-policy"
memory-encryption = "sev0"
`
    const guest = resolveGuest(objectsOfFile(file, 'vm.conf'))!
    expect(guest.config).toMatchObject({ flags: 0, policy: 1 })
    expect(guest.config.nonce[0]).toBe(0xab)
  })

  it('a receive object instead of a launch object: the image arrives encrypted', () => {
    const objects = [
      'security-policy,memory-encryption=g',
      'sev-guest-info,id=g,receive=r',
      'sev-receive-info,id=r,policy=0',
    ]
    expect(resolveGuest(objectsOf(objects))?.kind).toBe('receive')
  })

  it('no security policy, or one without memory-encryption: no encryption', () => {
    expect(resolveGuest([])).toBeUndefined()
    expect(resolveGuest(objectsOf(['security-policy']))).toBeUndefined()
  })

  // biome-ignore format: table
  it.each([
    ['a type nobody knows',       ['sev-lunch-info,id=a'],                                        "there is no object type 'sev-lunch-info'"],
    ['a property nobody knows',   ['sev-launch-info,id=a,color=red'],                             'sev-launch-info.color: no such key'],
    ['an object without an id',   ['sev-launch-info'],                                            'sev-launch-info.id: is required'],
    ['an id taken twice',         ['sev-launch-info,id=a', 'sev-policy-info,id=a'],               "'a' is taken"],
    ['a reference to nothing',    ['security-policy,memory-encryption=x'],                        "there is no sev-guest-info 'x'"],
    ['a reference to another type',['security-policy,memory-encryption=x', 'sev-policy-info,id=x'], "there is no sev-guest-info 'x'"],
    ['a guest without an image',  ['security-policy,memory-encryption=x', 'sev-guest-info,id=x'], 'or receive is required'],
    ['a policy that is neither',  ['security-policy,memory-encryption=x', 'sev-guest-info,id=x,launch=l', 'sev-launch-info,id=l,policy=p'], 'nor is there a sev-policy-info'],
    ['a switch half way',         ['security-policy,memory-encryption=x', 'sev-guest-info,id=x,launch=l', 'sev-launch-info,id=l,flags.ks=maybe'], 'neither on nor off'],
    ['a version beyond 8 bits',   ['security-policy,memory-encryption=x', 'sev-guest-info,id=x,launch=l', 'sev-launch-info,id=l,policy=p', 'sev-policy-info,id=p,fw_major=256'], 'more than 8 bits'],
    ['a nonce beyond its field',  ['security-policy,memory-encryption=x', 'sev-guest-info,id=x,launch=l', `sev-launch-info,id=l,nonce=${'00'.repeat(17)}`], '17 bytes do not fit in 16'],
    ['a part that is no pair',    ['sev-launch-info,id'],                                         "'id' is not key=value"],
  ])('refuse %s', (_, options, message) => {
    expect(() => resolveGuest(objectsOf(options))).toThrow(SevConfigError)
    expect(() => resolveGuest(objectsOf(options))).toThrow(message)
  })

  it('a doubled comma in an option is a comma', () => {
    expect(parseOption('sev,config=a,,b,type=x').text('config')).toBe('a,b')
  })
})
