// A token table that follows its file.
#pragma once

#include "service/auth/token_table.h"
#include "service/followed_file.h"

namespace latentforge::service {

using TokenFile = FollowedFile<TokenTable>;

}  // namespace latentforge::service
