// Where a vCPU starts: the host has set SP and X0 to X7, and X8 to the function to call. What returns is done.
	.file	"start.S"
	.text
	.globl	guest_start
guest_start:
	blr	x8
	mov	x0, #3			// UCALL_DONE
	mov	x1, #0
	bl	ucall
	b	guest_spin
