/**
 * PCI Express capability, version 2 (PCIe 7.5.3). Link training, slots and error reporting are fixed
 * values; what acts is Initiate FLR and, in a port, End-End TLP Prefix Blocking.
 */
import { bank, bits, flag, r16, r32 } from '../../base/fields.js'
import { RegisterFile } from '../../base/registers.js'
import { type Capability, type CapabilityFactory, capabilityHeader } from '../capability.js'
import { CAPABILITY } from '../ids.js'
import type { PciNode } from '../node.js'

/** Device/Port Type, PCIe 7.5.3.2. */
export const PORT_TYPE = { ENDPOINT: 0, ROOT_PORT: 4, INTEGRATED_ENDPOINT: 9 } as const

/** The capability structure; an endpoint and a port differ in values, not in layout. */
export const EXPRESS = bank(
  'PCI Express capability',
  {
    Header: capabilityHeader(CAPABILITY.PCI_EXPRESS),
    PCI_Express_Capabilities: r16(0x02, 'PCIe 7.5.3.2', {
      Interrupt_Message_Number: bits(13, 9, 'ro', 'vector of port events'),
      Slot_Implemented: flag(8, 'ro', 'the link goes to a slot'),
      Device_Port_Type: bits(7, 4, 'ro', '0 endpoint, 4 root port, 9 integrated endpoint'),
      Version: bits(3, 0, 'ro', 'capability version'),
    }),
    Device_Capabilities: r32(
      0x04,
      'PCIe 7.5.3.3',
      {
        Function_Level_Reset: flag(28, 'ro', 'Initiate_FLR works'),
        Role_Based_Error_Reporting: flag(15, 'ro', 'always set since PCIe 1.1'),
        Extended_Tag_Supported: flag(5, 'ro', '8-bit tags'),
        Max_Payload_Size_Supported: bits(2, 0, 'ro', '128 << n bytes'),
      },
      0x8022n, // role-based error reporting, extended tags, 512 bytes
    ),
    Device_Control: r16(
      0x08,
      'PCIe 7.5.3.4',
      {
        Initiate_FLR: flag(15, 'wo', 'resets the function; reads as 0'),
        Max_Read_Request_Size: bits(14, 12, 'rw', '128 << n bytes'),
        Enable_No_Snoop: flag(11, 'rw', 'requests may bypass caches'),
        Extended_Tag_Enable: flag(8, 'rw', '8-bit tags'),
        Max_Payload_Size: bits(7, 5, 'rw', '128 << n bytes'),
        Enable_Relaxed_Ordering: flag(4, 'rw', 'requests may pass others'),
        Unsupported_Request_Reporting_Enable: flag(3, 'rw', 'report UR'),
        Fatal_Error_Reporting_Enable: flag(2, 'rw', 'report fatal errors'),
        Non_Fatal_Error_Reporting_Enable: flag(1, 'rw', 'report non-fatal errors'),
        Correctable_Error_Reporting_Enable: flag(0, 'rw', 'report correctable errors'),
      },
      0x2810n, // 512-byte reads, no snoop, relaxed ordering: the defaults of the specification
    ),
    Device_Status: r16(0x0a, 'PCIe 7.5.3.5', {
      Transactions_Pending: flag(5, 'ro', 'a non-posted request waits for its completion'),
      AUX_Power_Detected: flag(4, 'ro', 'no auxiliary power'),
      Unsupported_Request_Detected: flag(3, 'rw1c', 'a request was refused'),
      Fatal_Error_Detected: flag(2, 'rw1c', 'fatal'),
      Non_Fatal_Error_Detected: flag(1, 'rw1c', 'non-fatal'),
      Correctable_Error_Detected: flag(0, 'rw1c', 'correctable'),
    }),
    Link_Capabilities: r32(0x0c, 'PCIe 7.5.3.6', {
      Port_Number: bits(31, 24, 'ro', 'of the port'),
      Link_Bandwidth_Notification: flag(21, 'ro', 'not supported'),
      Data_Link_Layer_Active_Reporting: flag(20, 'ro', 'Data_Link_Layer_Link_Active is real'),
      Maximum_Link_Width: bits(9, 4, 'ro', 'lanes'),
      Max_Link_Speed: bits(3, 0, 'ro', '4: 16 GT/s'),
    }),
    Link_Control: r16(0x10, 'PCIe 7.5.3.7', {
      Common_Clock_Configuration: flag(6, 'rw', 'no effect'),
      Read_Completion_Boundary: flag(3, 'rw', 'no effect'),
      ASPM_Control: bits(1, 0, 'rw', 'no effect'),
    }),
    Link_Status: r16(0x12, 'PCIe 7.5.3.8', {
      Data_Link_Layer_Link_Active: flag(13, 'ro', 'the link is up'),
      Slot_Clock_Configuration: flag(12, 'ro', 'uses the reference clock'),
      Negotiated_Link_Width: bits(9, 4, 'ro', 'lanes'),
      Current_Link_Speed: bits(3, 0, 'ro', '4: 16 GT/s'),
    }),
    Root_Control: r16(0x1c, 'PCIe 7.5.3.12', {
      PME_Interrupt_Enable: flag(3, 'rw', 'no PME is ever sent'),
    }),
    Device_Capabilities_2: r32(0x24, 'PCIe 7.5.3.15', {
      Max_End_End_TLP_Prefixes: bits(23, 22, 'ro', '1: one'),
      End_End_TLP_Prefix_Supported: flag(21, 'ro', 'PASID prefixes can be sent or forwarded'),
      Extended_Fmt_Field_Supported: flag(20, 'ro', '3-bit Fmt, which prefixes need'),
      Completion_Timeout_Disable_Supported: flag(4, 'ro', 'Completion_Timeout_Disable works'),
    }),
    Device_Control_2: r16(0x28, 'PCIe 7.5.3.16', {
      End_End_TLP_Prefix_Blocking: flag(15, 'rw', 'ports: refuse prefixed requests'),
      Completion_Timeout_Disable: flag(4, 'rw', 'completions never time out here'),
    }),
    Link_Capabilities_2: r32(0x2c, 'PCIe 7.5.3.18', {
      Supported_Link_Speeds_Vector: bits(7, 1, 'ro', '2.5, 5, 8 and 16 GT/s'),
    }),
    Link_Control_2: r16(0x30, 'PCIe 7.5.3.19', {
      Target_Link_Speed: bits(3, 0, 'rw', 'no effect'),
    }),
  },
  0x3c,
)

interface ExpressOptions {
  readonly type: number
  readonly endEndPrefix: boolean
  readonly flr: boolean
  readonly portNumber: number
}

/** PCI Express of one function. */
export class ExpressCapability implements Capability {
  readonly id = CAPABILITY.PCI_EXPRESS
  readonly extended = false
  readonly file: RegisterFile<typeof EXPRESS>
  /** Whether a port refuses requests with a PASID prefix: blocked by software, or not supported. */
  blocksPrefixes = false
  readonly #options: ExpressOptions

  constructor(node: PciNode, options: ExpressOptions) {
    this.#options = options
    const isPort = options.type === PORT_TYPE.ROOT_PORT
    this.file = new RegisterFile(EXPRESS, {
      onWrite: {
        Device_Control: ({ Initiate_FLR }) => {
          if (Initiate_FLR && options.flr) node.reset()
        },
        Device_Control_2: () => {
          if (!isPort) this.file.regs.Device_Control_2.End_End_TLP_Prefix_Blocking = false
          this.#refresh()
        },
      },
    })
    this.reset()
  }

  link(next: number): void {
    this.file.regs.Header.NEXT = next
  }

  reset(): void {
    const { type, endEndPrefix, flr, portNumber } = this.#options
    this.file.reset()
    const r = this.file.regs
    r.PCI_Express_Capabilities.Version = 2
    r.PCI_Express_Capabilities.Device_Port_Type = type
    r.Device_Capabilities.Function_Level_Reset = flr
    r.Device_Capabilities_2.Completion_Timeout_Disable_Supported = true
    r.Device_Capabilities_2.Extended_Fmt_Field_Supported = endEndPrefix
    r.Device_Capabilities_2.End_End_TLP_Prefix_Supported = endEndPrefix
    r.Device_Capabilities_2.Max_End_End_TLP_Prefixes = endEndPrefix ? 1 : 0
    this.#refresh()
    if (type === PORT_TYPE.INTEGRATED_ENDPOINT) return // it has no link (PCIe 7.5.3, table of types)
    r.Link_Capabilities.Port_Number = portNumber
    r.Link_Capabilities.Maximum_Link_Width = 16
    r.Link_Capabilities.Max_Link_Speed = 4
    r.Link_Status.Negotiated_Link_Width = 16
    r.Link_Status.Current_Link_Speed = 4
    r.Link_Status.Slot_Clock_Configuration = true
    r.Link_Capabilities_2.Supported_Link_Speeds_Vector = 0xf
    r.Link_Control_2.Target_Link_Speed = 4
    if (type === PORT_TYPE.ROOT_PORT) {
      r.Link_Capabilities.Data_Link_Layer_Active_Reporting = true
      r.Link_Status.Data_Link_Layer_Link_Active = true
    }
  }

  restore(): void {
    this.#refresh()
  }

  #refresh(): void {
    const r = this.file.regs
    this.blocksPrefixes =
      r.Device_Control_2.End_End_TLP_Prefix_Blocking ||
      !r.Device_Capabilities_2.End_End_TLP_Prefix_Supported
  }
}

/**
 * PCI Express capability of an endpoint: function-level reset, and End-End TLP prefixes, without which
 * operating systems leave PASID off. Integrated endpoints (on bus 0) have no link.
 */
export const express =
  (options: { endEndPrefix?: boolean; flr?: boolean } = {}): CapabilityFactory =>
  node =>
    new ExpressCapability(node, {
      type: node.bus.bridge ? PORT_TYPE.ENDPOINT : PORT_TYPE.INTEGRATED_ENDPOINT,
      endEndPrefix: options.endEndPrefix ?? true,
      flr: options.flr ?? true,
      portNumber: 0,
    })

/** PCI Express capability of a root port. */
export const expressPort =
  (options: { portNumber: number; endEndPrefix: boolean }): CapabilityFactory =>
  node =>
    new ExpressCapability(node, { ...options, type: PORT_TYPE.ROOT_PORT, flr: false })
