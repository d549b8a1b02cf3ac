metadata description = 'A private network for one region: subnets for the app and for private endpoints, and a way out.'

@description('Required. Ending of the names.')
param token string

@description('Required. Region.')
param location string

@description('Required. Tags.')
param tags object

@description('Required. Addresses of the network, a /16.')
param addressPrefix string

@description('Required. DNS zones that its private endpoints are named in.')
param zones string[]

resource group 'Microsoft.Network/networkSecurityGroups@2025-05-01' = {
  name: 'nsg-${token}'
  location: location
  tags: tags
}

resource exitAddress 'Microsoft.Network/publicIPAddresses@2025-05-01' = {
  name: 'pip-${token}'
  location: location
  tags: tags
  sku: { name: 'Standard' }
  properties: { publicIPAllocationMethod: 'Static' }
}

// New subnets have no way to the internet of their own; telemetry and models outside of Azure need one.
resource exit 'Microsoft.Network/natGateways@2025-05-01' = {
  name: 'nat-${token}'
  location: location
  tags: tags
  sku: { name: 'Standard' }
  properties: { publicIpAddresses: [{ id: exitAddress.id }], idleTimeoutInMinutes: 10 }
}

resource network 'Microsoft.Network/virtualNetworks@2025-05-01' = {
  name: 'vnet-${token}'
  location: location
  tags: tags
  properties: {
    addressSpace: { addressPrefixes: [addressPrefix] }
    subnets: [
      {
        name: 'app'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 24, 0)
          networkSecurityGroup: { id: group.id }
          natGateway: { id: exit.id }
          delegations: [
            { name: 'functions', properties: { serviceName: 'Microsoft.App/environments' } }
          ]
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 24, 1)
          networkSecurityGroup: { id: group.id }
          privateEndpointNetworkPolicies: 'Enabled'
        }
      }
    ]
  }
}

resource dns 'Microsoft.Network/privateDnsZones@2024-06-01' = [
  for zone in zones: {
    name: zone
    location: 'global'
    tags: tags
  }
]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [
  for (zone, i) in zones: {
    parent: dns[i]
    name: 'vnet-${token}'
    location: 'global'
    tags: tags
    properties: { registrationEnabled: false, virtualNetwork: { id: network.id } }
  }
]

output appSubnetId string = network.properties.subnets[0].id
output endpointSubnetId string = network.properties.subnets[1].id
