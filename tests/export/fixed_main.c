/* Reads observations from standard input and writes the actions: integers, or with FLOATS the numbers of
   the environment. MASK bytes follow every observation. */
#include <stdio.h>

#include "trpo_policy.h"

#ifdef FLOATS
typedef REAL number;
typedef ACTION entry;
#define ACT trpo_policy_act_float
#else
typedef int32_t number;
typedef int32_t entry;
#define ACT trpo_policy_act
#endif

int main(void) {
  static number observation[TRPO_POLICY_OBSERVATION];
  static entry action[TRPO_POLICY_ACTION];
#ifdef MASK
  static unsigned char allowed[MASK];
#endif
  while (fread(observation, sizeof(number), TRPO_POLICY_OBSERVATION, stdin) ==
         TRPO_POLICY_OBSERVATION) {
#ifdef MASK
    if (fread(allowed, 1, MASK, stdin) != MASK) return 3;
    if (ACT(observation, allowed, action) != 0) return 2;
#else
    if (ACT(observation, action) != 0) return 2;
#endif
    if (fwrite(action, sizeof(entry), TRPO_POLICY_ACTION, stdout) != TRPO_POLICY_ACTION) return 4;
  }
  return 0;
}
