// Configuration files of the kind that VMMs of the time read: `[group]` or `[group "id"]`, then `key = "value"` lines;
// `#` begins a comment line. Rules C-2, C-10 and C-11; which groups there may be is the reader's to say.

import { OptionSet, SevConfigError } from './options.js'

const GROUP = /^\[([^\]\s"]+)(?:\s+"([^"]+)")?\s*\]$/
const KEY = /^([^\s=]+)\s*=\s*"([^"]*)"$/

/** Groups of a file, in order. SevConfigError: a line that is neither, a key outside a group, a group nobody knows. */
export function parseConfigFile(
  text: string,
  file: string,
  known: readonly string[],
): readonly OptionSet[] {
  const groups: OptionSet[] = []
  const lines = text.split('\n')
  for (const [n, raw] of lines.entries()) {
    const line = raw.trim()
    const where = `${file}:${n + 1}`
    if (line === '' || line.startsWith('#')) continue
    const group = GROUP.exec(line)
    if (group) {
      const [, name, id] = group
      if (!known.includes(name!))
        throw unparsable(where, `there is no group '${name}'; known are ${known.join(', ')}`)
      groups.push(new OptionSet(name!, id, where))
      continue
    }
    const key = KEY.exec(line)
    if (!key) throw unparsable(where, `'${line}' is neither [group] nor key = "value"`)
    const into = groups.at(-1)
    if (into === undefined) throw unparsable(where, `'${key[1]}' comes before any group`)
    into.set(key[1]!, key[2]!, where)
  }
  return groups
}

const unparsable = (where: string, what: string) =>
  new SevConfigError(`${where}: could not parse the configuration: ${what}`)

/** A `type,key=value,…` option as on a command line; a comma in a value is doubled. */
export function parseOption(text: string): OptionSet {
  const parts = text.split(/(?<!,),(?!,)/).map(part => part.replaceAll(',,', ','))
  const type = parts[0]!
  const pairs = parts.slice(1).map(part => {
    const at = part.indexOf('=')
    if (at <= 0) throw new SevConfigError(`${text}: '${part}' is not key=value`)
    return [part.slice(0, at), part.slice(at + 1)] as const
  })
  const set = new OptionSet(type, pairs.find(([key]) => key === 'id')?.[1], text)
  for (const [key, value] of pairs) if (key !== 'id') set.set(key, value, text)
  return set
}
