/* Status codes of Chimera: the same closed set on the wire, in logs and in the plugin ABI.
 *
 * The numbers are part of the plugin ABI and never change; new codes are appended.
 * The names on the wire are the lower-case spellings beside each value.
 */
#ifndef CHIMERA_STATUS_CODE_H_
#define CHIMERA_STATUS_CODE_H_

#ifdef __cplusplus
extern "C" {
#endif

typedef enum chimera_status_code {
  CHIMERA_OK = 0,                  /* ok */
  CHIMERA_INVALID_ARGUMENT = 1,    /* invalid_argument: the caller's input is wrong */
  CHIMERA_NOT_FOUND = 2,           /* not_found */
  CHIMERA_ALREADY_EXISTS = 3,      /* already_exists */
  CHIMERA_FAILED_PRECONDITION = 4, /* failed_precondition: right input, wrong state */
  CHIMERA_PERMISSION_DENIED = 5,   /* permission_denied */
  CHIMERA_RESOURCE_EXHAUSTED = 6,  /* resource_exhausted: a bounded queue or pool is full */
  CHIMERA_DEADLINE_EXCEEDED = 7,   /* deadline_exceeded */
  CHIMERA_CANCELLED = 8,           /* cancelled */
  CHIMERA_DATA_CORRUPT = 9,        /* data_corrupt: stored bytes are not what they claim */
  CHIMERA_UNAVAILABLE = 10,        /* unavailable: try again later */
  CHIMERA_UNIMPLEMENTED = 11,      /* unimplemented */
  CHIMERA_INTERNAL = 12            /* internal: a defect of Chimera itself */
} chimera_status_code;

#ifdef __cplusplus
}
#endif

#endif /* CHIMERA_STATUS_CODE_H_ */
