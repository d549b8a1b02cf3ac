metadata description = 'What Front Door does with a request: strips what only the platform may say, and picks the nearest region that answers.'

@description('Required. Profile made by edge.bicep.')
param profileName string

@description('Required. Endpoint made by edge.bicep.')
param endpointName string

@description('Required. Host names of the apps, the preferred region first.')
param hostNames string[]

// The Functions host joins a request to its invocation by the first of these; the others are App Service's word on who
// calls. None of them may come from outside.
var platformHeaders = [
  'x-ms-invocation-id'
  'x-ms-client-principal'
  'x-ms-client-principal-id'
  'x-ms-client-principal-name'
  'x-ms-client-principal-idp'
]

resource profile 'Microsoft.Cdn/profiles@2025-12-01' existing = {
  name: profileName
}

resource door 'Microsoft.Cdn/profiles/afdEndpoints@2025-12-01' existing = {
  parent: profile
  name: endpointName
}

resource apps 'Microsoft.Cdn/profiles/originGroups@2025-12-01' = {
  parent: profile
  name: 'apps'
  properties: {
    // Any instance in any region serves any request, so nothing has to stick.
    sessionAffinityState: 'Disabled'
    loadBalancingSettings: { sampleSize: 4, successfulSamplesRequired: 3, additionalLatencyInMilliseconds: 50 }
    // Every edge site of Front Door probes: with one region there is nothing to choose, and an idle app stays idle.
    healthProbeSettings: length(hostNames) > 1
      ? { probePath: '/readyz', probeProtocol: 'Https', probeRequestType: 'HEAD', probeIntervalInSeconds: 100 }
      : null
  }
}

resource origins 'Microsoft.Cdn/profiles/originGroups/origins@2025-12-01' = [
  for (hostName, i) in hostNames: {
    parent: apps
    name: 'region-${i}'
    properties: {
      hostName: hostName
      originHostHeader: hostName
      httpsPort: 443
      priority: 1
      weight: 1000
      enabledState: 'Enabled'
      enforceCertificateNameCheck: true
    }
  }
]

resource rules 'Microsoft.Cdn/profiles/ruleSets@2025-12-01' = {
  parent: profile
  name: 'requests'
}

resource strip 'Microsoft.Cdn/profiles/ruleSets/rules@2025-12-01' = {
  parent: rules
  name: 'stripPlatformHeaders'
  properties: {
    order: 1
    matchProcessingBehavior: 'Continue'
    actions: [
      for header in platformHeaders: {
        name: 'ModifyRequestHeader'
        parameters: {
          typeName: 'DeliveryRuleHeaderActionParameters'
          headerAction: 'Delete'
          headerName: header
        }
      }
    ]
  }
}

resource route 'Microsoft.Cdn/profiles/afdEndpoints/routes@2025-12-01' = {
  parent: door
  name: 'all'
  // An origin must exist before a route may name its group.
  dependsOn: [origins, strip]
  properties: {
    originGroup: { id: apps.id }
    ruleSets: [{ id: rules.id }]
    supportedProtocols: ['Http', 'Https']
    httpsRedirect: 'Enabled'
    forwardingProtocol: 'HttpsOnly'
    patternsToMatch: ['/*']
    linkToDefaultDomain: 'Enabled'
    enabledState: 'Enabled'
    // No cache and no compression: both would hold a stream back.
  }
}
