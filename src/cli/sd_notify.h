/* cli/sd_notify.h - telling systemd (or whoever set NOTIFY_SOCKET) how the service is: sd_notify(3)'s protocol, one datagram a message.
 *
 * Without NOTIFY_SOCKET nothing happens. */
#ifndef QUIRE_CLI_SD_NOTIFY_H
#define QUIRE_CLI_SD_NOTIFY_H

#include <stdint.h>

/* "READY=1\nSTATUS=..." */
void sd_notify_send(const char *state);
/* How often WATCHDOG=1 is wanted, half of what WATCHDOG_USEC allows; 0: not at all. */
int64_t sd_notify_watchdog_us(void);

#endif
