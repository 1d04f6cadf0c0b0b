// An OpenID Connect provider: node oidc_provider.mjs PORT KEYS, where KEYS is a file with a JWK Set.
// A client gets JWT access tokens for the resource urn:shop:ALGORITHM:SECONDS.
import { readFileSync } from 'node:fs';
import Provider from 'oidc-provider';

const [port, keys] = process.argv.slice(2);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: JSON.parse(readFileSync(keys)),
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'] },
  clients: [{
    client_id: 'robot',
    client_secret: 'not-a-secret',
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    id_token_signed_response_alg: 'ES256',
  }],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo(ctx, resource) {
        const [, , alg, seconds] = resource.split(':');
        return {
          scope: 'read write',
          audience: resource,
          accessTokenTTL: Number(seconds),
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg } },
        };
      },
    },
  },
});

provider.listen(Number(port), '127.0.0.1', () => console.log('listening'));
